"""INPUT on the command line besides paths: standard input in any format, and a prompt."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys

import pytest

from fastgen.cli import input_given
from fastgen.errors import SettingsError
from tests.conftest import read_lines
from tests.input.readers.test_formats import as_parquet

FAKE = ("--backend", "fake", "--gpus", "cpu", "--size", "64x64")


@pytest.mark.parametrize(
    ("start", "suffix"),
    [
        (b'{"prompt": "a"}\n', ".jsonl"),
        (b'\xef\xbb\xbf\n {"prompt": "a"}', ".jsonl"),
        ('{"prompt": "a"}'.encode("utf-16"), ".jsonl"),
        (b'[{"prompt": "a"}]', ".json"),
        (b"id,prompt\n1,a", ".csv"),
        (b'"Prompt";"seed"\n', ".csv"),
        (b"id\tprompt\n", ".tsv"),
        (b"a red circle, large\n", ".txt"),
        (b"the text, as I said\n", ".txt"),
        (as_parquet([{"prompt": "a"}]), ".parquet"),
        (gzip.compress(b"{}", mtime=0), ".jsonl.gz"),
    ],
)
def test_what_is_on_standard_input_is_known_by_its_beginning(start, suffix):
    assert input_given.kind(start[:4096]) == suffix


@pytest.mark.parametrize(
    ("task", "given", "is_one"),
    [
        ("t2i", "a red circle on blue", True),
        ("t2i", "in/out, a door", True),
        ("t2i", "rows.jsonl", False),
        ("t2i", "my rows.csv", False),
        ("t2i", "cat", False),
        ("edit", "make it blue", False),
        ("t2i", "https://example.com/a b", False),
    ],
)
def test_a_prompt_has_several_words_and_is_no_file(task, given, is_one):
    assert input_given.is_prompt(task, given) == is_one


def test_a_prompt_of_one_word_has_a_flag(cli, tmp_path):
    refused = cli("t2i", "cat", *FAKE)
    assert refused.returncode == 2 and "a prompt of one word is given with --prompt" in refused.stderr
    assert cli("t2i", "--prompt", "cat", *FAKE, "-q").returncode == 0 and (tmp_path / "cat.png").exists()


def test_an_existing_file_is_no_prompt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two words").touch()
    assert not input_given.is_prompt("t2i", "two words")


def test_nothing_on_standard_input(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b" \n")))
    with pytest.raises(SettingsError, match="nothing on standard input"):
        input_given.as_file("t2i", {"input": "-", "out": tmp_path}, "")
    assert not list((tmp_path / "inputs").iterdir())


def test_a_prompt_makes_a_picture_here(cli, tmp_path):
    for _ in range(2):
        done = cli("t2i", "A red circle, on blue!", *FAKE)
        assert done.returncode == 0, done.stderr
        assert [path.name for path in tmp_path.glob("*.png")] == ["a-red-circle-on-blue.png"], "made once"
    cli("t2i", "A red circle, on blue!", *FAKE, "--seed", "1")
    (tmp_path / "a-red-circle-on-blue.png").write_bytes(b"mine")
    cli("t2i", "A red circle, on blue!", *FAKE)
    assert (tmp_path / "a-red-circle-on-blue.png").read_bytes() == b"mine", "no file is overwritten"
    assert (tmp_path / "a-red-circle-on-blue-1.png").exists()


def test_rows_from_standard_input_are_kept_and_resumed(tmp_path):
    command = [sys.executable, "-m", "fastgen", "t2i", "-", *FAKE, "-o", "out", "-q"]
    data = b'{"prompt": "a"}\nbroken\n'
    for code in (3, 3):
        done = subprocess.run(command, input=data, cwd=tmp_path, capture_output=True)
        assert done.returncode == code, done.stderr
    rows = read_lines(tmp_path / "out/results.jsonl")
    assert [row["fastgen"]["status"] for row in rows] == ["done", "failed"]
    assert len(list((tmp_path / "out/inputs").iterdir())) == 1 and not list((tmp_path / "out").glob("results-*"))
    plan = subprocess.run([*command[:-2], "new", "--dry-run"], input=b"a fox\n", cwd=tmp_path, capture_output=True)
    assert b"1 row:" in plan.stdout and not (tmp_path / "new").exists()
