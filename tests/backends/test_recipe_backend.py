"""The recipe "a backend" of docs/design.md, followed word for word."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fastgen.config import backends
from fastgen.errors import SettingsError
from fastgen.resolver import resolve
from tests.backends.echo import SPEC

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(backends, "_by_name", dict(backends._by_name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    backends.register(SPEC)


def test_rows_run_on_a_backend_that_is_registered(registered, tmp_path, rows_file, go):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = rows_file([{"image": "a.png", "prompt": "say this"}, {"image": "a.png", "prompt": "and that"}])
    settings = resolve("caption", rows, backend="echo", model="parrot", gpus="cpu", out=tmp_path / "out")
    assert settings.run.notes == ("echo repeats what it is told",)
    done = go(settings)
    assert [row["caption"] for row in done.table] == ["say this", "and that"]
    assert {(row["fastgen"]["backend"], row["fastgen"]["model"]) for row in done.table} == {("echo", "parrot")}


def test_it_does_what_it_says_and_no_more(registered, tmp_path):
    with pytest.raises(SettingsError, match=r"--backend echo: for t2i one of local"):
        resolve("t2i", backend="echo", out=tmp_path)
    with pytest.raises(SettingsError, match="--base-url: --backend echo runs on this machine"):
        resolve("caption", backend="echo", base_url="http://127.0.0.1:9", out=tmp_path)
    with pytest.raises(SettingsError, match="--quantize: only the engine on this machine"):
        resolve("caption", backend="echo", quantize="8bit", out=tmp_path)
    with pytest.raises(ValueError, match="a backend named local is already registered"):
        backends.register(backends.BackendSpec("local", ("caption",), {}, ""))


@pytest.mark.parametrize("name", ["ecko", "Local", "open-ai", "local "])
def test_a_backend_that_nobody_registered_is_refused(name, tmp_path):
    for flags in ({"backend": name}, {"fallback": name}, {"backend": name, "base_url": "http://127.0.0.1:9/v1"}):
        if name == "local " and "fallback" in flags:
            continue  # spaces around the names of a list mean nothing
        with pytest.raises(SettingsError, match=r": for t2i one of local, openai, gemini"):
            resolve("t2i", out=tmp_path, **flags)
