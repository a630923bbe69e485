"""A run folder is claimed, gone on with, or refused with a fix; nothing in it is lost by that."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from fastgen.errors import RunFolderError, SettingsError
from fastgen.output import artifacts
from fastgen.output.run_dir import RunFolder

ROWS = [{"id": "a", "prompt": "a"}, {"id": "b", "prompt": "b"}]


@pytest.fixture
def claim(settings, rows_file):
    """claim(task="t2i", input=None, **flags): claim the folder and let go of it; what the user is told."""

    def claim(task="t2i", input=None, rows=None, **flags):
        path = input if input is not None or rows is not None else rows_file(ROWS)
        folder = RunFolder(settings(task, path, **flags))
        folder.input = folder.spool(rows) if rows is not None else ""
        folder.close()
        return folder

    return claim


@pytest.fixture
def finished(settings, rows_file, go):
    """The folder of a finished run."""
    return go(settings("t2i", rows_file(ROWS))).out


def refusal(claim, *arguments, **flags) -> str:
    with pytest.raises(RunFolderError) as caught:
        claim(*arguments, **flags)
    return str(caught.value)


# --fresh


def test_fresh_says_where_everything_is_now(finished, claim):
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    folder = claim(fresh=True)
    assert f"is now in {finished / 'previous-1'}" in folder.warning
    for name in ("journal.jsonl", "results.jsonl", "run.json"):
        assert (finished / "previous-1" / name).read_bytes() == before[name]
    assert sorted(path.name for path in (finished / "previous-1/images").iterdir()) == ["a_0.png", "b_0.png"]
    assert not list((finished / "images").iterdir())


def test_fresh_in_a_new_folder_says_nothing(claim, tmp_path):
    assert claim(fresh=True).warning == "" and not list((tmp_path / "out").glob("previous-*"))


def test_the_advice_is_never_to_move_what_the_run_reads(finished, claim, rows_file):
    assert "--fresh" in refusal(claim, steps=9), "where that does no harm"
    text = refusal(claim, "caption", finished / "images")
    assert "task: 't2i' before, 'caption' now" in text and "--fresh" not in text and "another folder" in text
    text = refusal(claim, "edit", rows_file([{"prompt": "p", "image": str(finished / "images/a_0.png")}], "edit.jsonl"))
    assert "--fresh" not in text


def test_fresh_is_refused_where_it_would_move_what_the_run_reads(finished, claim, rows_file):
    edits = [{"prompt": "p", "image": str(finished / "images/a_0.png")}]
    for text in (
        refusal(claim, "caption", finished / "images", fresh=True),
        refusal(claim, "edit", rows_file(edits, "edits.jsonl"), fresh=True),
        refusal(claim, "edit", rows=edits, fresh=True),
    ):
        assert "which this run reads; use another folder with -o" in text
    assert (finished / "images/a_0.png").exists() and (finished / "results.jsonl").exists()
    assert not (finished / "previous-1").exists() and not (finished / "rows.jsonl").exists()


def test_a_table_by_another_name_is_no_input_either(finished, claim, tmp_path):
    (tmp_path / "again").symlink_to(finished)
    (tmp_path / "table.jsonl").symlink_to(finished / "results.jsonl")
    for path in (tmp_path / "again/results.jsonl", tmp_path / "table.jsonl", finished / "journal.jsonl"):
        assert "would be overwritten" in refusal(claim, input=path)


# What is missing or foreign


@pytest.mark.parametrize("left", ["images", "tables"])
@pytest.mark.parametrize("gone", ["missing", "empty", "damaged"])
def test_a_lost_journal_is_no_reason_to_make_everything_again(finished, claim, left, gone):
    if gone == "missing":
        (finished / "journal.jsonl").unlink()
    else:
        kept = b"" if gone == "empty" else (finished / "journal.jsonl").read_bytes()[:40]  # not even one line
        (finished / "journal.jsonl").write_bytes(kept)
    for path in [*finished.glob("*s.jsonl")] if left == "images" else (finished / "images").iterdir():
        path.unlink()
    text = refusal(claim)
    assert f"journal.jsonl is {gone}" in text and "restore it, use --fresh" in text and "another folder" in text
    assert claim(fresh=True).warning and len(list((finished / "previous-1").iterdir())) > 1


def test_without_any_result_the_journal_is_not_missed(claim, tmp_path):
    claim()
    assert not (tmp_path / "out/journal.jsonl").exists()
    claim()


def test_a_run_that_was_killed_before_its_first_result_goes_on(claim, tmp_path):
    claim()
    (tmp_path / "out/journal.jsonl").touch()
    (tmp_path / "out/images/a_0.png").write_bytes(b"not committed")
    claim()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"settings": []}', '{"settings": {}}', '{"fastgen": "0.1.0", "settings": 3}', "[" * 9999],
)
def test_a_run_json_that_is_none(finished, claim, text):
    (finished / "run.json").write_text(text)
    assert "its run.json is missing or damaged" in refusal(claim)
    (finished / "journal.jsonl").unlink()
    for fresh in (False, True):
        assert "contains run.json but was not made by fastgen; choose another folder" in refusal(claim, fresh=fresh)


@pytest.mark.parametrize("key", ["input", "pid", "counts", "state", "settings"])
@pytest.mark.parametrize("value", [None, [], {}, "x", 7])
def test_odd_types_in_run_json(finished, claim, key, value):
    about = json.loads((finished / "run.json").read_text())
    (finished / "run.json").write_text(json.dumps(about | {key: value}))
    try:
        claim()
    except RunFolderError as error:
        assert key == "settings" and ("missing or damaged" in str(error) or "task: None before" in str(error))


def test_a_place_for_images_on_another_disk_is_taken(settings, rows_file, go, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/images").symlink_to(disk)
    out = go(settings("t2i", rows_file(ROWS))).out
    assert sorted(path.name for path in disk.iterdir()) == ["a_0.png", "b_0.png"] and (out / "images").is_symlink()
    assert go(settings("t2i", rows_file(ROWS))).counts["new"] == 0


def test_a_link_to_pictures_is_somebody_elses(claim, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/mine.png").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/images").symlink_to(tmp_path / "disk")
    assert "contains images but was not made by fastgen" in refusal(claim)


def test_a_mounted_place_for_images(settings, rows_file, go, small_disk, tmp_path):
    (tmp_path / "out/images").mkdir(parents=True)
    if subprocess.run(["mount", "--bind", small_disk.path, tmp_path / "out/images"], capture_output=True).returncode:
        pytest.skip("cannot mount a folder")
    try:
        assert artifacts.is_elsewhere(tmp_path / "out/images")
        outcome = go(settings("t2i", rows_file(ROWS)))
        assert outcome.counts["done"] == 2 and (small_disk.path / "a_0.png").exists()
        assert go(settings("t2i", rows_file(ROWS), fresh=True)).counts["new"] == 2
        assert (tmp_path / "out/previous-1/images/a_0.png").exists()
        assert sorted(p.name for p in small_disk.path.iterdir()) == ["a_0.png", "b_0.png", "previous-1"]
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "out/images"], check=True)


def test_a_folder_mounted_from_the_same_disk_is_elsewhere(tmp_path):
    (tmp_path / "a place").mkdir()
    (tmp_path / "images").mkdir()
    assert not artifacts.is_elsewhere(tmp_path / "a place")
    if subprocess.run(["mount", "--bind", tmp_path / "images", tmp_path / "a place"], capture_output=True).returncode:
        pytest.skip("cannot mount a folder")
    try:
        assert artifacts.is_elsewhere(tmp_path / "a place")
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "a place"], check=True)


# Rows from Python


def test_rows_from_python_overwrite_no_file_of_the_users(claim, rows_file, tmp_path):
    (tmp_path / "out").mkdir()
    mine = rows_file(ROWS, "out/rows.jsonl")
    claim(input=mine)
    before = mine.read_bytes()
    folder = claim(rows=[{"prompt": "from Python"}])
    assert mine.read_bytes() == before and folder.input == str(tmp_path / "out/rows-1.jsonl")


def test_rows_from_python_take_the_place_of_those_before(claim, tmp_path):
    claim(rows=[{"prompt": "first"}])
    folder = claim(rows=[{"prompt": "second"}])
    assert folder.input == str(tmp_path / "out/rows.jsonl") and "second" in (tmp_path / "out/rows.jsonl").read_text()
    with pytest.raises(SettingsError, match="row 2"):
        claim(rows=[{"prompt": "third"}, 7])
    assert "second" in (tmp_path / "out/rows.jsonl").read_text() and not (tmp_path / "out/.partial").exists()
    claim(rows=[])


# How a run ended


def test_a_run_that_ends_without_a_word_is_not_running(settings, rows_file, tmp_path):
    folder = RunFolder(settings("t2i", rows_file(ROWS)))
    folder.write_run(state="running")
    folder.close()
    assert json.loads((tmp_path / "out/run.json").read_text())["state"] == "stopped"
    folder = RunFolder(settings("t2i", rows_file(ROWS)))
    folder.write_run(state="interrupted", counts={"done": 1})
    folder.close()
    assert json.loads((tmp_path / "out/run.json").read_text())["counts"] == {"done": 1}


def test_folders_are_durable_before_anything_is_said_to_be_done(settings, rows_file, monkeypatch, tmp_path):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")) or fsync(file))
    RunFolder(settings("t2i", rows_file(ROWS))).close()
    assert str(tmp_path / "out") in synced, "with run.json, images and logs in it"
