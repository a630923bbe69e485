"""The folder of a run whose settings differ from those of the run in the usual folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastgen.errors import SettingsError
from fastgen.resolver import resolve


@pytest.fixture
def ran(tmp_path, monkeypatch, go):
    """ran(**flags): a run in the usual folder of t2i, below the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')
    return lambda **flags: go(found(**flags))


def found(**flags):
    return resolve("t2i", "rows.jsonl", backend="fake", gpus="cpu", **flags)


def test_folders_are_numbered_and_found_again(ran):
    ran()
    runs = Path("fastgen-runs").absolute()
    other = found(steps=9, fallback="openai:gpt-image-2@http://127.0.0.1:9/v1")
    assert {link.run.out for link in other.route} == {str(runs / "t2i-2")}
    assert f"{runs}/t2i has a run with other settings (steps: 4 before, 9 now)" in other.run.notes[-1]
    assert found().run.out == str(runs / "t2i")
    assert [link.run.out for link in found(steps=9, fresh=True).route] == [str(runs / "t2i")]
    ran(steps=9)
    assert found(steps=9).run.out == str(runs / "t2i-2")
    assert found(steps=10).run.out == str(runs / "t2i-3")
    journal = runs / "t2i" / "journal.jsonl"
    journal.write_bytes(b"")  # nothing was made there
    assert found(steps=9).run.out == str(runs / "t2i")


def test_what_cannot_be_read_is_left_to_the_run(ran):
    ran()
    about = Path("fastgen-runs/t2i/run.json")
    for text in ("{", "[]", json.dumps({"settings": 3})):
        about.write_text(text)
        assert found(steps=9).run.out == str(about.absolute().parent)


@pytest.mark.parametrize("flag", ["image_key", "mask_key"])
def test_t2i_reads_no_images(tmp_path, flag):
    with pytest.raises(SettingsError, match=f"--{flag.replace('_', '-')} x: t2i reads no images"):
        resolve("t2i", out=tmp_path / "out", backend="fake", gpus="cpu", **{flag: "x"})
