"""The tables of a finished run are left alone when it is started again, and written again when anything differs."""

from __future__ import annotations

import json
import os

import pytest

from fastgen.scheduler.run import Run
from fastgen.workers import registry

ROWS = [{"id": f"row-{i}", "prompt": f"picture {i}", "note": i} for i in range(5)]


@pytest.fixture
def again(settings, rows_file, monkeypatch):
    """again(rows, **flags) -> (inode of results.jsonl, its rows), after a run in the same folder."""
    monkeypatch.setitem(registry.PLACES, "instant", "bench.loop_rate:Instant")

    def again(rows, **flags):
        run = Run(settings("t2i", rows_file(rows), **flags), place="instant")
        list(run.results())
        path = run.folder.path / "results.jsonl"
        return path.stat().st_ino, [json.loads(line)["note"] for line in path.read_bytes().splitlines()]

    return again


def test_nothing_is_written_when_nothing_has_changed(again, settings):
    first, notes = again(ROWS)
    assert notes == [0, 1, 2, 3, 4]
    assert again(ROWS) == (first, notes) == again(ROWS)


@pytest.mark.parametrize("change", ["row", "order", "limit", "table edited", "table gone", "fields", "parquet gone"])
def test_any_change_writes_them_again(again, tmp_path, change):
    table, flags = tmp_path / "out" / "results.jsonl", {"table": "parquet"}
    first, _ = again(ROWS, **flags)
    rows = list(ROWS)
    if change == "row":
        rows.append({"id": "row-9", "prompt": "one more", "note": 9})
    elif change == "order":
        rows.reverse()
    elif change == "limit":
        flags["limit"] = 3
    elif change == "fields":
        rows[0] = {**rows[0], "note": 7}  # another content, so it is made anew
    elif change == "table edited":
        table.write_bytes(table.read_bytes().replace(b"picture", b"PICTURE"))
        os.utime(table, ns=(0, 0))
    elif change == "table gone":
        table.unlink()
    else:
        (table.parent / "results.parquet").unlink()
    second, noted = again(rows, **flags)
    assert noted == [row["note"] for row in rows[: flags.get("limit")]]
    assert second != first or change == "table gone", "inodes of removed files are used again"
    assert b"PICTURE" not in table.read_bytes() and (table.parent / "results.parquet").exists()
