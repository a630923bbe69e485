"""What is to be done about each row, by what the journal has of it."""

from __future__ import annotations

import json
import os

import pytest
from msgspec.structs import replace
from PIL import Image

from fastgen.input.readers.rows import RowReader
from fastgen.input.requests import Prefilled
from fastgen.output.journal import Journal
from fastgen.output.row_spool import RowSpool
from fastgen.scheduler.failure_policy import AGAIN
from fastgen.scheduler.triage import Skipped, triage
from fastgen.types import Done, Failed, Request


class Before:
    """A run folder, and what earlier runs committed to its journal."""

    def __init__(self, settings, rows_file, tmp_path):
        self.make, self.rows_file, self.out = settings, rows_file, tmp_path / "out"
        (self.out / "images").mkdir(parents=True)
        (self.out / ".partial").mkdir()
        self.journal = Journal(self.out / "journal.jsonl")
        self.spool = None
        self.warnings = []

    def look(self, rows: list, journal: bool = True, **flags) -> list:
        settings = self.make("t2i", self.rows_file(rows), out=self.out, **flags)
        reader = RowReader(self.rows_file(rows))
        return list(triage(settings, reader, self.journal if journal else None, self.spool, self.warnings.append))

    def done(self, request: Request) -> Done:
        path = f"images/{request.id}_0.png"
        Image.new("RGB", (64, 64)).save(self.out / path)
        made = Done(request.id, "fake", "fake", (path,), request.params, 0.5, content=request.content)
        self.journal.append([made])
        return made

    def failed(self, request: Request, kind: str) -> Failed:
        found = Failed(request.id, kind, f"{kind}: it went wrong", content=request.content)
        self.journal.append([found])
        return found


@pytest.fixture
def before(settings, rows_file, tmp_path):
    before = Before(settings, rows_file, tmp_path)
    yield before
    before.journal.close()


ROWS = [{"id": "a", "prompt": "a"}, {"id": "b", "prompt": "b"}]


def test_nothing_done_yet(before):
    rows = [*ROWS, {"id": "kept", "prompt": "c", "images": ["mine.png"]}, {"id": "bad"}, b"no json"]
    for journal in (True, False):
        found = before.look(rows, journal)
        assert [type(item) for item in found] == [Request, Request, Prefilled, Failed, Failed]
        assert [item.id for item in found[:4]] == ["a", "b", "kept", "bad"]


def test_a_done_row_is_skipped_with_its_result(before):
    made = before.done(before.look(ROWS)[0])
    skipped, left = before.look(ROWS)
    assert skipped == Skipped(made) and isinstance(left, Request) and left.id == "b"
    assert [type(item) for item in before.look(ROWS, journal=False)] == [Request, Request]


def test_a_row_that_says_something_new_runs(before):
    before.done(before.look(ROWS)[0])
    assert [type(item) for item in before.look([{"id": "a", "prompt": "else"}])] == [Request]


@pytest.mark.parametrize("damage", ["gone", "empty"])
def test_a_done_row_whose_picture_is_lost_runs_and_is_told(before, damage):
    made = before.done(before.look(ROWS)[0])
    picture = before.out / made.paths[0]
    os.unlink(picture) if damage == "gone" else picture.write_bytes(b"")
    assert isinstance(before.look(ROWS)[0], Request)
    [warning] = before.warnings
    assert "1 row" in warning


@pytest.mark.parametrize("kind", ["refused", "internal", "poison", "oom", "truncated"])
def test_a_failed_row_waits_for_the_flag(before, kind):
    known = before.failed(before.look(ROWS)[0], kind)
    assert before.look(ROWS)[0] == Skipped(known)
    assert isinstance(before.look(ROWS, retry_failed=True)[0], Request)


@pytest.mark.parametrize("kind", sorted(AGAIN - {"input"}))
def test_a_row_that_was_turned_away_for_no_fault_of_its_own_runs_again(before, kind):
    before.failed(before.look(ROWS)[0], kind)
    assert isinstance(before.look(ROWS)[0], Request)


def test_bad_rows_are_looked_at_each_time(before):
    [bad] = before.look([{"id": "a", "prompt": 7}])
    assert isinstance(bad, Failed) and bad.kind == "input"
    before.journal.append([bad])
    assert before.look([{"id": "a", "prompt": 7}]) == [Skipped(bad)], "the same is not committed twice"
    assert isinstance(before.look([{"id": "a", "prompt": "fixed"}])[0], Request)
    [other] = before.look([{"id": "a", "prompt": ["another fault"]}])
    assert isinstance(other, Failed) and other.message != bad.message


def test_every_row_is_kept_for_the_tables(before):
    before.done(before.look(ROWS)[0])
    before.spool = RowSpool(before.out)
    rows = [*ROWS, {"id": "kept", "prompt": "c", "images": ["mine.png"]}, b"no json", {"id": "bad"}]
    before.look(rows)
    spooled = list(before.spool)
    before.spool.close()
    assert [row.number for row in spooled] == [1, 2, 3, 4, 5]
    assert [row.raw for row in spooled] == [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    assert [row.prefilled for row in spooled] == [False, False, True, False, False]
    assert [row.readable for row in spooled] == [True, True, True, False, True]
    assert [row.id for row in spooled][:3] == ["a", "b", "kept"]


def test_a_new_result_never_overwrites_one_that_stands(before):
    """Rows that swapped their ids: what the first makes now must not replace the file that the journal has."""
    made = before.done(before.look(ROWS)[0])
    [changed] = before.look([{"id": "a", "prompt": "else"}])
    assert changed.stem and f"images/{changed.stem}_0.png" != made.paths[0]
    (before.out / made.paths[0]).unlink()
    [again] = before.look(ROWS[:1])
    assert replace(again, stem="") == before.look(ROWS[:1], journal=False)[0]
