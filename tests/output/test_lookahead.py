"""A process looks at the files ahead of the run, and its word is taken only for files that are intact."""

from __future__ import annotations

import json
import os
import time

import pytest

from fastgen.output import lookahead
from fastgen.output.artifacts import write
from fastgen.output.journal import Journal
from fastgen.output.lookahead import Lookahead
from fastgen.scheduler.run import Run
from fastgen.scheduler.triage import _Earlier as triage
from fastgen.types import Done, Failed, ImageParams
from tests.output.test_intact import data_of

PARAMS = ImageParams(64, 64, 4, 0.0, 0, 1)
HURT = {"missing": lambda path: path.unlink(), "cut": lambda path: path.write_bytes(path.read_bytes()[:-1])}


def done(out, id: str, **more) -> Done:
    path = f"images/{id}_0.png"
    return Done(id, "fake", "fake", (path,), PARAMS, 0.5, "c", files=(write(out, path, data_of("PNG")),), **more)


@pytest.fixture
def journal(tmp_path):
    for name in ("images", ".partial"):
        (tmp_path / name).mkdir()
    journal = Journal(tmp_path / "journal.jsonl")
    yield journal
    journal.close()


def through(ahead: Lookahead, journal: Journal) -> None:
    limit = time.monotonic() + 60
    while ahead.until < journal.size:
        ahead._read()
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.parametrize("slow", [False, True], ids=["disk", "far away"])
def test_what_is_not_intact_is_told_apart(tmp_path, journal, monkeypatch, capfdbinary, slow):
    monkeypatch.setattr(lookahead, "AT_ONCE", 600)
    monkeypatch.setattr(lookahead, "SLOW_S", -1.0 if slow else 60.0)
    rows = [done(tmp_path, f"r{i}") for i in range(8)]
    journal.append(
        [
            *rows,
            Failed("f", "input", "no", content="c"),
            Done("old", "fake", "fake", ("images/r0_0.png",), PARAMS, 1.0, "c"),
        ]
    )
    HURT["missing"](tmp_path / rows[2].paths[0])
    HURT["cut"](tmp_path / rows[5].paths[0])
    monkeypatch.chdir(tmp_path)
    lookahead.look(str(tmp_path), str(journal.path))
    ahead = Lookahead(str(tmp_path), journal.path)
    assert ahead._process is None, "for ten rows there is no process"
    assert not ahead.found_intact(0), "and so nothing is known"
    ahead._take(capfdbinary.readouterr().out)
    found = [ahead.found_intact(journal.position(journal.get(row.id, "c"))) for row in rows]
    assert found == [True, True, False, True, True, False, True, True]
    old = journal.get("old", "c")
    assert not ahead.found_intact(journal.position(old)), "version 0.1.0 wrote no stamps: the run looks for itself"


def test_a_run_that_has_caught_up_sends_the_process_ahead(tmp_path, journal, monkeypatch, capfdbinary):
    """Nobody vouches for what was left out."""
    rows = [done(tmp_path, f"r{i}") for i in range(8)]
    journal.append(rows)
    at = [journal.position(journal.get(row.id, "c")) for row in rows]
    monkeypatch.setattr(lookahead, "AT_ONCE", 1)
    told = iter([0, 0, at[4] + 1])
    monkeypatch.setattr(lookahead, "_told", lambda: next(told, 0))
    monkeypatch.chdir(tmp_path)
    lookahead.look(str(tmp_path), str(journal.path))
    ahead = Lookahead(str(tmp_path), journal.path)
    ahead._take(capfdbinary.readouterr().out)
    assert [ahead.found_intact(position) for position in at] == [True, True, True, False, False, True, True, True]


def test_a_run_says_where_it_looks_itself(tmp_path, journal, monkeypatch):
    monkeypatch.setattr(lookahead, "LEAST_BYTES", 1)
    journal.append([done(tmp_path, "a")])
    ahead = Lookahead(str(tmp_path), journal.path)
    told = []
    monkeypatch.setattr(ahead, "_read", lambda: None)
    monkeypatch.setattr(os, "write", lambda file, data: told.append(int.from_bytes(data, "little")))
    assert not any(map(ahead.found_intact, (0, 5, lookahead.SKIPPED - 1, 99 * lookahead.FAR, lookahead.SKIPPED + 3)))
    assert told == [lookahead.SKIPPED, 2 * lookahead.SKIPPED + 3], "once until it is there, and not for one far away"
    ahead.close()


def test_a_long_journal_gets_a_process_that_ends_with_it(tmp_path, journal, monkeypatch):
    monkeypatch.setattr(lookahead, "LEAST_BYTES", 1)
    rows = [done(tmp_path, f"r{i}") for i in range(3)]
    journal.append(rows)
    HURT["missing"](tmp_path / rows[1].paths[0])
    ahead = Lookahead(str(tmp_path), journal.path)
    process = ahead._process
    through(ahead, journal)
    assert [ahead.found_intact(journal.position(journal.get(f"r{i}", "c"))) for i in range(3)] == [True, False, True]
    ahead.close()
    assert process.returncode is not None


def test_a_run_whose_files_were_looked_at_ahead_makes_only_what_is_damaged(
    settings, rows_file, tmp_path, monkeypatch, table
):
    """Nothing is decoded or looked at twice, and the table is that of a run without a process."""
    rows = rows_file([{"id": f'"{i}"', "prompt": f"picture {i}"} for i in range(30)])

    def go() -> Run:
        run = Run(settings("t2i", rows))
        assert all(isinstance(result, Done) for result in run.results())
        return run

    stands, first = triage._stands, go()
    out = first.folder.path
    before = (out / "results.jsonl").read_bytes()
    seen = []
    monkeypatch.setattr(lookahead, "LEAST_BYTES", 1)
    monkeypatch.setattr(Lookahead, "found_intact", waiting(Lookahead.found_intact))
    monkeypatch.setattr(triage, "_stands", lambda self, known, _: seen.append(known.id) or stands(self, known, _))
    (out / table(out / "results.jsonl")[7]["images"][0]).unlink()
    again = go()
    assert seen == ['"7"'] and again.counts["done"] == 30 and again.counts["new"] == 1
    assert [row["images"] for row in table(out / "results.jsonl")] == [
        row["images"] for row in map(json.loads, before.splitlines())
    ]


def waiting(found_intact):
    """The same, after the process has come that far."""

    def wait(self, position: int) -> bool:
        limit = time.monotonic() + 60
        while position >= self.until and time.monotonic() < limit:
            self._read()
            time.sleep(0.001)
        return found_intact(self, position)

    return wait


def test_a_process_that_dies_leaves_the_run_to_itself(tmp_path, journal, monkeypatch):
    monkeypatch.setattr(lookahead, "LEAST_BYTES", 1)
    journal.append([done(tmp_path, "a")])
    ahead = Lookahead(str(tmp_path), journal.path)
    ahead._process.kill()
    ahead._process.wait()
    assert not ahead.found_intact(journal.size) and ahead._process is None


def test_only_the_newest_line_of_a_row_is_known_by_its_place(tmp_path, journal):
    first, second = done(tmp_path, "a"), Done("a", "fake", "fake", (), PARAMS, 0.5, "other")
    journal.append([first])
    journal.append([second])
    assert journal.position(journal.get("a", "other")) == len(journal.path.read_bytes().splitlines(True)[0])
    assert journal.position(journal.get("a", "c")) > journal.size
