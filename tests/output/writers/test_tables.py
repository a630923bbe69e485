"""results.jsonl: one line a row, in order, the user's fields untouched; an error never stands where a picture
belongs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from fastgen.errors import DiskError, FastgenError
from fastgen.input.readers import rows
from fastgen.output import artifacts
from fastgen.output.journal import Journal
from fastgen.output.row_spool import RowSpool
from fastgen.output.run_dir import RunFolder
from fastgen.output.writers.tables import describe, write_tables
from fastgen.scheduler.triage import triage
from fastgen.types import Done, Failed, ImageParams

PARAMS = ImageParams(64, 48, 4, 0.5, 7, 1)


@pytest.fixture
def write(settings, table, tmp_path):
    """write(input, {row number: Done or Failed made from (id, content)}, **flags) -> (results, failures)."""

    def write(path, results, **flags):
        resolved = settings("t2i", path, **flags)
        out = Path(resolved.run.out)
        folder = RunFolder(resolved)
        beside = tmp_path / "beside"
        (beside / artifacts.PARTIAL).mkdir(parents=True, exist_ok=True)
        with closing(Journal(out / "journal.jsonl")) as journal, closing(RowSpool(beside)) as spool:
            for _ in triage(resolved, rows.RowReader(path), None, spool):
                pass
            for row in spool:
                if row.number in results:
                    journal.append([results[row.number](row.id, row.content)])
            try:
                write_tables(resolved, spool, journal)
                assert not list((out / artifacts.PARTIAL).iterdir())
            finally:
                folder.close()
        return table(out / "results.jsonl"), table(out / "failures.jsonl")

    return write


def done(id, content):
    return Done(id, "fake", "fake-1", (f"images/{id}.png",), PARAMS, 1.25, content, attempts=2, stages={"decode": 9.0})


def refused(id, content):
    return Failed(id, "refused", "declined", "", "fake", "fake-1", content, attempts=3)


def bad(id, content):
    return Failed(id, "input", "row 2: broken", "prompt", "fake", "fake-1", content)


def test_one_line_a_row_in_order(rows_file, write):
    given = [
        {"z": 2**64 + 1, "prompt": "a", "id": "one", "note": None},
        {"prompt": "b", "images": [""], "id": "two", "fastgen": "old"},
        {"prompt": "c", "id": "three", "images": ["kept.png"], "x": 1.50},
    ]
    results, failures = write(rows_file(given), {1: done, 2: refused})
    assert [list(row) for row in results] == [
        ["z", "prompt", "id", "note", "images", "fastgen"],
        ["prompt", "id", "fastgen"],
        ["prompt", "id", "images", "x", "fastgen"],
    ]
    assert {key: results[0][key] for key in given[0]} == given[0] and results[0]["images"] == ["images/one.png"]
    assert results[0]["fastgen"] == {
        "id": "one",
        "status": "done",
        "backend": "fake",
        "model": "fake-1",
        "seed": 7,
        "width": 64,
        "height": 48,
        "steps": 4,
        "guidance": 0.5,
        "seconds": 1.25,
        "attempts": 2,
    }
    assert results[1]["fastgen"] == {
        "id": "two",
        "status": "failed",
        "backend": "fake",
        "model": "fake-1",
        "attempts": 3,
        "error": {"kind": "refused", "message": "declined"},
    }
    assert results[2] == {**given[2], "fastgen": {"id": "three", "status": "kept"}}
    assert failures == [results[1]]


def test_a_kept_row_keeps_what_an_earlier_run_said(rows_file, write):
    row = {"prompt": "a", "images": ["kept.png"], "fastgen": {"id": "x", "status": "done", "seed": 3}}
    assert write(rows_file([row]), {})[0] == [row]


def test_a_broken_line_is_told_word_for_word(rows_file, write):
    results, failures = write(rows_file([b'{"prompt": "a"', b'"\xff"']), {1: bad, 2: bad})
    assert [row["line"] for row in results] == ['{"prompt": "a"', '"\ufffd"'] and failures == results
    assert results[0]["fastgen"]["error"] == {"kind": "input", "message": "row 2: broken", "field": "prompt"}


def test_the_output_field_may_have_another_name(rows_file, write):
    results, _ = write(rows_file([{"prompt": "a", "images": ["mine"]}]), {1: done}, output_key="pictures")
    assert results[0]["images"] == ["mine"] and results[0]["pictures"] == [f"images/{results[0]['fastgen']['id']}.png"]


def test_warnings_are_shown():
    assert describe(Done("a", "b", "m", (), PARAMS, 1.0, warnings=("odd",)))["warnings"] == ("odd",)


def test_no_result_no_table(rows_file, write, tmp_path):
    path = rows_file([{"prompt": "a"}, {"prompt": "b"}])
    write(path, {1: done, 2: done})
    before = (tmp_path / "out/results.jsonl").read_bytes()
    rows_file([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}])
    with pytest.raises(FastgenError, match="row 3"):
        write(path, {})
    assert (tmp_path / "out/results.jsonl").read_bytes() == before


def test_a_full_disk_keeps_the_old_table(rows_file, write, small_disk):
    path = rows_file([{"prompt": "a"}])
    write(path, {1: done}, out=small_disk.path)
    before = (small_disk.path / "results.jsonl").read_bytes()
    rows_file([{"prompt": "a", "note": "x" * 2_000_000}])
    with pytest.raises(DiskError, match=r"results\.jsonl.*No space left"):
        write(path, {1: done}, out=small_disk.path)
    assert (small_disk.path / "results.jsonl").read_bytes() == before
