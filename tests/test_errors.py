"""What a message quotes of a user's value: little, on one line, and nothing that a terminal would obey."""

from __future__ import annotations

import pytest

from fastgen.errors import MOST_QUOTED, FastgenError, InputError, SettingsError, quoted
from fastgen.resolver import resolve


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("a.png", "a.png"),
        ("ein Bild 一杯茶 🍵.png", "ein Bild 一杯茶 🍵.png"),
        ("a\nb\x1b[2J", "a\\nb\\x1b[2J"),
        ("bad\udcff.png", "bad\\udcff.png"),
        (7, "7"),
        (["a", 1], "['a', 1]"),
        ("x" * MOST_QUOTED, "x" * MOST_QUOTED),
    ],
)
def test_short_values_are_quoted_whole(value, wanted):
    assert quoted(value) == wanted


@pytest.mark.parametrize(
    "value", ["a" * 201 + "z", "é" * 10**6, "\n" * 10**6, 10**4000, ["x" * 999], 10**5000], ids=range(6)
)
def test_long_ones_by_beginning_and_end(value):
    assert len(quoted(value)) <= MOST_QUOTED and "\n" not in quoted(value)
    assert len(quoted(value, 60)) <= 60


def test_the_end_of_a_path_is_kept():
    assert quoted("/data/" + "x" * 500 + "/photo-17.png").endswith("/photo-17.png")


def test_no_message_of_a_row_is_endless():
    assert len(str(InputError("x" * 10**6, "prompt"))) <= 1000


def test_no_word_of_a_message_is_endless():
    message = str(SettingsError(f"--size {'9' * 10**6}: write it as WIDTHxHEIGHT"))
    assert len(message) < 300 and message.startswith("--size 9") and message.endswith(": write it as WIDTHxHEIGHT")
    assert len(str(SettingsError("a b " * 10**6))) <= 10_000
    assert str(FastgenError()) == "" and str(FastgenError("a short one")) == "a short one"


FLAGS = (
    "input",
    "lora",
    "transformer",
    "schema",
    "image_root",
    "profile",
    "model",
    "size",
    "dtype",
    "quantize",
    "backend",
)
FLAGS += ("format", "base_url", "fallback", "batch_size", "attention", "cache", "gpus")


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_that_are_far_too_long_are_refused_in_a_few_words(flag):
    value = "A" * 300_000
    with pytest.raises(SettingsError) as caught:
        resolve("edit", **{"gpus": "cpu", "model": "tiny", flag: [value] if flag == "lora" else value})
    assert len(str(caught.value)) < 700 and "A" * 201 not in str(caught.value)
