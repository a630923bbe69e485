"""The run folder: one run at a time, one set of settings, and nothing in it that is not ours is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import fastgen
from fastgen.errors import RunFolderError
from fastgen.output.run_dir import RunFolder

CLAIM = """
import sys, fastgen
from fastgen.output.run_dir import RunFolder
folder = RunFolder(fastgen.resolve("t2i", sys.argv[1], backend="fake", gpus="cpu", out=sys.argv[2]))
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def claim(settings, rows_file):
    """claim(**flags) -> the folder of a run with these flags, let go of with the test."""
    held = []

    def claim(input=None, **flags):
        held.append(RunFolder(settings("t2i", input or rows_file([{"prompt": "a"}]), **flags)))
        return held[-1]

    yield claim
    for folder in held:
        folder.close()


def about(folder: RunFolder) -> dict:
    return json.loads((folder.path / "run.json").read_text("utf-8"))


def finished(folder: RunFolder) -> RunFolder:
    """As a run leaves it that committed something."""
    (folder.path / "journal.jsonl").write_text("{}\n")
    (folder.path / "results.jsonl").write_text("{}\n")
    (folder.path / "images" / "a.png").touch()
    folder.close()
    return folder


def test_a_claimed_folder_says_what_runs_in_it(claim, tmp_path):
    folder = claim(gpus="cpu:2", batch_size=3)
    found = about(folder)
    assert (found["fastgen"], found["pid"], found["state"]) == (fastgen.__version__, os.getpid(), "starting")
    assert found["settings"] == json.loads(json.dumps(folder.settings.fingerprint()))
    assert [device["name"] for device in found["devices"]] == ["cpu:0", "cpu:1"] and found["batch_size"] == 3
    assert found["input"] == str(tmp_path / "rows.jsonl") and found["profile"]["name"]
    assert {"images", "logs"} <= {path.name for path in folder.path.iterdir() if path.is_dir()}
    folder.write_run(state="finished", counts={"done": 1})
    assert (about(folder)["state"], about(folder)["counts"]) == ("finished", {"done": 1})
    assert claim(out=tmp_path / "auto").settings.run.batch_size == 0
    assert json.loads((tmp_path / "auto" / "run.json").read_text())["batch_size"] == "auto"


def test_one_run_at_a_time(claim, rows_file, tmp_path):
    rows = rows_file([{"prompt": "a"}])
    other = subprocess.Popen(
        [sys.executable, "-c", CLAIM, rows, tmp_path / "out"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "claimed\n"
    for fresh in (False, True):
        with pytest.raises(RunFolderError, match=rf"process {other.pid}\)"):
            claim(rows, fresh=fresh)
    other.communicate()
    claim(rows)


def test_whoever_lets_go_leaves_it_to_the_next(claim):
    first = claim()
    (first.path / ".partial").mkdir(exist_ok=True)
    first.close()
    assert not (first.path / ".partial").exists()
    assert claim().warning == ""


def test_what_a_kill_left_half_written_is_cleared(claim):
    folder = finished(claim())
    (folder.path / ".partial").mkdir(exist_ok=True)
    (folder.path / ".partial" / "half.png").touch()
    claim()
    assert not (folder.path / ".partial" / "half.png").exists() and (folder.path / "images" / "a.png").exists()


def test_other_settings_are_named_one_by_one(claim):
    finished(claim(steps=4, seed=0))
    with pytest.raises(RunFolderError, match=r"steps: 4 before, 5 now") as caught:
        claim(steps=5, seed=1)
    assert "seed: 0 before, 1 now" in str(caught.value) and "guidance" not in str(caught.value)
    claim(steps=4, batch_size=7).close()  # it changes no picture
    assert claim(steps=5, fresh=True)


def test_settings_that_committed_nothing_bind_nobody(claim):
    claim(steps=4).close()
    claim(steps=5)


def test_fresh_clears_what_is_ours_alone(claim):
    folder = finished(claim())
    (folder.path / "notes.txt").touch()
    claim(steps=9, fresh=True)
    there = {path.name for path in folder.path.iterdir()}
    assert "notes.txt" in there and not {"journal.jsonl", "results.jsonl"} & there
    assert not list((folder.path / "images").iterdir()) and about(folder)["settings"]["steps"] == 9


@pytest.mark.parametrize("name", ["images", "logs", "results.jsonl"])
def test_a_folder_of_somebody_else_is_not_taken(claim, tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    for fresh in (False, True):
        with pytest.raises(RunFolderError, match="not made by fastgen"):
            claim(fresh=fresh)
    assert (tmp_path / "out" / name).exists()
    claim(out=tmp_path / "another")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"pid": 1}'])
def test_without_its_settings_a_folder_is_not_guessed_at(claim, content):
    run = finished(claim()).path / "run.json"
    run.unlink()
    if content is not None:
        run.write_text(content)
    with pytest.raises(RunFolderError, match=r"run\.json.*--fresh"):
        claim()
    claim(fresh=True)


def test_the_table_of_another_input_is_kept_under_another_name(claim, rows_file):
    first = finished(claim(rows_file([{"prompt": "a"}], "a.jsonl")))
    for number, name in enumerate(("b.jsonl", "c.jsonl"), 1):
        folder = claim(rows_file([{"prompt": "b"}], name))
        assert f"results-{number}.jsonl" in folder.warning and not (first.path / "results.jsonl").exists()
        assert (first.path / f"results-{number}.jsonl").exists()
        finished(folder)
    assert claim(rows_file([{"prompt": "b"}], "c.jsonl")).warning == ""


@pytest.mark.parametrize("name", ["results.jsonl", "failures.jsonl"])
def test_a_table_of_the_folder_is_no_input_for_it(claim, tmp_path, name):
    table = tmp_path / "out" / name
    table.parent.mkdir()
    table.write_text('{"prompt": "a"}\n')
    with pytest.raises(RunFolderError, match="overwritten"):
        claim(table)
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_place_that_cannot_be_written_is_refused(claim, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot write there"):
        claim(out=tmp_path / "file" / "out")


def test_rows_from_python_are_put_beside_the_results(claim, table):
    folder = claim()
    path = folder.spool([{"prompt": "a"}, {"prompt": "é 🍵"}])
    assert table(path) == [{"prompt": "a"}, {"prompt": "é 🍵"}] and path.startswith(str(folder.path))


def test_rows_that_cannot_be_had_let_go_of_the_folder(claim):
    def rows():
        yield {"prompt": "a"}
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        claim().spool(rows())
    claim()
