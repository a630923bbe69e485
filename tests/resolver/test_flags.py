"""Arguments from Python: what can be meant is taken, None is "not given", and the rest is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fastgen.errors import SettingsError
from fastgen.resolver import resolve

FAKE = {"backend": "fake", "gpus": "cpu"}


def test_numbers_of_numpy_and_paths_are_taken(rows_file, tmp_path):
    given = {"steps": np.int64(3), "guidance": np.float32(2.5), "n": np.int32(2), "seed": np.uint8(7)}
    settings = resolve("t2i", rows_file([{"prompt": "a"}]), out=tmp_path / "run", **given, **FAKE)
    image = settings.image
    assert (image.steps, image.guidance, image.n, settings.rows.seed) == (3, 2.5, 2, 7)
    assert [type(value) for value in (image.steps, image.guidance, settings.rows.seed)] == [int, float, int]
    with pytest.raises(SettingsError, match=r"^--model .*nowhere: no such folder"):
        resolve("t2i", model=tmp_path / "nowhere")


def test_none_is_not_given():
    names = ("n", "seed", "dtype", "format", "batch_size", "lora", "fallback", "max_cost", "rpm", "fresh")
    assert resolve("t2i", **dict.fromkeys(names), **FAKE) == resolve("t2i", **FAKE)


@pytest.mark.parametrize("name", ["input", "out", "image_root", "transformer", "profile", "model", "base_url"])
def test_what_is_empty_is_not_the_current_folder(name):
    called = "INPUT" if name == "input" else "-o" if name == "out" else f"--{name.replace('_', '-')}"
    with pytest.raises(SettingsError, match=f"^{called}: is empty"):
        resolve("t2i", **{name: "", **FAKE})


def test_one_lora_is_a_list_of_one(tmp_path):
    with pytest.raises(SettingsError, match=r"^--lora nowhere.safetensors: no such file"):
        resolve("t2i", lora="nowhere.safetensors", model="tiny", gpus="cpu")


def test_a_folder_that_is_not_utf8_is_refused_though_the_path_is(tmp_path, monkeypatch):
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    place.mkdir()
    monkeypatch.chdir(place)
    with pytest.raises(SettingsError, match=r"^-o run: leads to .*caf\\udce9/run, which is not UTF-8"):
        resolve("t2i", out="run", **FAKE)


def test_an_address_is_stripped(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    settings = resolve("t2i", backend="openai", base_url=" http://127.0.0.1:9/v1\n")
    assert settings.endpoint.base_url == "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"dtype": "float32", "gpus": "cpu"}, "--gpus, --dtype: no effect"),
        ({"batch_size": 4}, "--batch-size: no effect"),
        ({"dtype": "float32", "fallback": "local"}, ""),
        ({}, ""),
    ],
)
def test_flags_for_this_machine_are_named_where_services_do_all_the_work(monkeypatch, flags, named):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    settings = resolve("t2i", backend="openai", base_url="http://127.0.0.1:9/v1", **flags)
    said = [note for note in settings.run.notes if "no effect" in note]
    assert [note.startswith(named) for note in said] == [True] * bool(named)


@pytest.mark.parametrize("urls", [[""], ["http://127.0.0.1:9/v1", " "], ""])
def test_a_base_url_that_is_empty_is_refused(urls):
    with pytest.raises(SettingsError, match="--base-url: is empty"):
        resolve("t2i", backend="openai", base_url=urls)


def test_no_base_urls_are_none():
    assert not resolve("t2i", model="tiny", gpus="cpu", base_url=()).endpoint.base_url


@pytest.mark.parametrize("body", ['{"key": "sk-0123456789abcdef"}', {"top": {"auth": "of-the-environment"}}])
def test_a_key_in_extra_body_is_refused_and_not_shown(monkeypatch, body):
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
    with pytest.raises(SettingsError, match="--extra-body: contains a key") as refused:
        resolve("caption", backend="openai", base_url="http://127.0.0.1:9/v1", extra_body=body)
    assert "0123" not in str(refused.value)
