"""Refusals and error texts are told from captions: labelled texts in eight languages, and what is not about words."""

from __future__ import annotations

import time

import pytest

from fastgen.backends.remote.no_answers import kind_of
from tests.backends.remote import answers


@pytest.mark.parametrize("path", answers.FILES, ids=lambda path: path.stem)
def test_labelled_texts(path):
    """At least 99% of good texts are kept, and at least 95% of bad ones are named."""
    wrong, counts = answers.judge(path)
    assert len(wrong[True]) <= 0.01 * counts[True], wrong[True]
    assert len(wrong[False]) <= 0.05 * counts[False], wrong[False]


def test_there_are_enough_of_them_in_every_language():
    found = [one for path in answers.FILES for one in answers.read(path)]
    assert len(found) >= 400 and len({text for _, _, text in found}) == len(found)
    for is_good in (True, False):
        counts = {language: sum(one[:2] == (is_good, language) for one in found) for _, language, _ in found}
        assert len(counts) == 8 and min(counts.values()) >= 20, counts


@pytest.mark.parametrize(
    "text, kind",
    [
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("**I'm sorry**, but I can’t help with that.", "refusal"),
        ("Internal Server Error", "error"),
        ('```json\n{"error": "out of memory"}\n```', "error"),
        ("<!DOCTYPE html><title>502</title>", "error"),
        ("Traceback (most recent call last):\n" + "  File x\n" * 900, "error"),
        ("N/A", "nothing"),
        ("!" * 300, "nothing"),
        ("house " * 200, "nothing"),
        ("A house. " + "It is red and has a garden. " * 100, ""),
        ('{"error": null, "caption": "a house"}', ""),
        ('{"message": "hello"}', ""),
    ],
)
def test_kinds(text, kind):
    assert kind_of(text) == kind


def test_a_description_with_a_caution_in_it_is_an_answer():
    said = (
        "I can't identify the people. The photo shows a man in a grey suit who shakes hands with a woman in an office."
    )
    assert kind_of(said) == ""


@pytest.mark.parametrize(
    "piece", ["sorry, ", "i'm sorry, but ", "for a ", "as an ai, ", "抱歉，", "a(", "je ne ", "nicht "]
)
def test_no_text_takes_long(piece):
    """Expressions with repetitions inside repetitions could take for ever."""
    began = time.process_time()
    for length in (1400, 3000, 100_000):
        kind_of((piece * length)[:length])
    assert time.process_time() - began < 5
