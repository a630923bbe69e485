"""The rows of a run while it goes on and after it, and that looking changes nothing."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from filelock import FileLock

from fastgen.errors import RunFolderError
from fastgen.input.identities import Identities
from fastgen.input.readers.rows import Row
from fastgen.output.journal import Journal
from fastgen.view import sources
from fastgen.view.run_rows import RunRows
from tests.view.folders import everything, folder, journal_line, scenes


def content(row: dict) -> str:
    return Identities("images").identify(Row(1, json.dumps(row).encode())).content


@pytest.fixture
def live(tmp_path):
    """A run that is at work on three rows and has done the first."""
    rows = [{"id": name, "prompt": f"a {name}"} for name in ("fox", "owl", "elk")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder(tmp_path / "run", [], input=str(tmp_path / "rows.jsonl"), state="running")
    (out / "results.jsonl").unlink()
    (out / "journal.jsonl").write_bytes(journal_line("fox", ["images/fox_0.png"], content(rows[0])))
    return out


def append(out, id):
    with (out / "journal.jsonl").open("ab") as file:
        file.write(journal_line(id, [f"images/{id}_0.png"], content({"id": id, "prompt": f"a {id}"})))


def statuses(run):
    return {row.id: row.status for row in run.rows}


def test_a_finished_run_is_read_from_its_table(tmp_path):
    run = RunRows(scenes(tmp_path / "run"))
    before = everything(tmp_path)
    run.read()
    assert isinstance(run._source, sources.Table) and run.state == "finished"
    assert [row.id for row in run.rows] == [f"row-{k}" for k in range(8)]
    assert json.loads(run.line(3))["fastgen"]["id"] == "row-3"
    with pytest.raises(IndexError):
        run.line(8)
    run.refresh()
    assert run.since(0, 5) == (5, list(enumerate(run.rows))[:5]) and run.since(8, 5) == (8, [])
    assert everything(tmp_path) == before
    run.close()


def test_a_run_at_work_is_followed(live):
    before = everything(live)
    run = RunRows(live)
    run.read()
    assert statuses(run) == {"fox": "done", "owl": "pending", "elk": "pending"} and run.rows[1].prompt == "a owl"
    assert everything(live) == before, "looking writes nothing"
    end, _ = run.since(0, 100)
    append(live, "elk")
    run.refresh()
    end, rows = run.since(end, 100)
    assert [(position, row.status) for position, row in rows] == [(2, "done")]
    assert json.loads(run.line(2))["images"] == ["images/elk_0.png"]
    run.refresh()
    assert run.since(end, 100) == (end, []) and run.generation == 0


def test_half_a_line_of_the_journal_waits_for_the_rest(live):
    run = RunRows(live)
    run.read()
    whole = journal_line("owl", ["images/owl_0.png"], content({"id": "owl", "prompt": "a owl"}))
    for part in (whole[:50], whole[50:]):
        assert statuses(run)["owl"] == "pending"
        with (live / "journal.jsonl").open("ab") as file:
            file.write(part)
        run.refresh()
    assert statuses(run)["owl"] == "done"


def test_another_run_in_the_folder_is_read_anew(live):
    run = RunRows(live)
    run.read()
    about = json.loads((live / "run.json").read_text())
    (live / "run.json").write_text(json.dumps(about | {"started": "2026-02-02T00:00:00Z"}))
    append(live, "owl")
    run.refresh()
    assert run.generation == 1 and statuses(run) == {"fox": "done", "owl": "done", "elk": "pending"}


def test_the_state_needs_no_lock(live, monkeypatch):
    run = RunRows(live)
    with FileLock(live / ".lock"):
        assert run.state == "running"
        monkeypatch.setattr(FileLock, "acquire", lambda *a, **k: pytest.fail("it would stand in the way of a run"))
        os.utime(live / "journal.jsonl", (0, 0)), os.utime(live / "run.json", (0, 0))
        assert run.state == "running", "it has its lock, however long it is silent"
    assert run.state == "stopped", "run.json says running, but nobody has the lock or writes"


def test_without_input_the_journal_is_what_is_known(live):
    (live.parent / "rows.jsonl").unlink()
    run = RunRows(live)
    run.read()
    assert statuses(run) == {"fox": "done"} and run.rows[0].size == "48x48"


def test_rows_from_python_are_in_the_folder(live):
    shutil.move(live.parent / "rows.jsonl", live / "rows.jsonl")
    about = json.loads((live / "run.json").read_text())
    (live / "run.json").write_text(json.dumps(about | {"input": ""}))
    run = RunRows(live)
    run.read()
    assert list(statuses(run)) == ["fox", "owl", "elk"]


def test_parts_that_are_not_merged_are_one_run(live):
    for number, id in ((1, "fox"), (2, "owl")):
        part = live / f"shards/{number}-of-2"
        part.mkdir(parents=True)
        shutil.copy(live / "run.json", part)
        row = {"id": id, "prompt": f"a {id}"}
        (part / "journal.jsonl").write_bytes(journal_line(id, [f"images/{id}_0.png"], content(row)))
    (live / "journal.jsonl").unlink(), (live / "run.json").unlink()
    run = RunRows(live)
    run.read()
    assert statuses(run) == {"fox": "done", "owl": "done", "elk": "pending"}
    assert json.loads(run.line(1))["images"] == ["shards/2-of-2/images/owl_0.png"]
    alone = RunRows(live / "shards/2-of-2")
    alone.read()
    assert statuses(alone) == {"owl": "done"}, "of every second row"


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"run\.json cannot be read"):
        RunRows(tmp_path)
    folder(tmp_path / "run", [])
    (tmp_path / "run/results.jsonl").unlink()
    with pytest.raises(RunFolderError, match="has no results yet"):
        RunRows(tmp_path / "run")


def test_the_journal_of_a_run_is_followed_by_another_process(tmp_path):
    path = tmp_path / "journal.jsonl"
    writer = Journal(path)
    reader = Journal(path, read_only=True)
    assert reader.follow() == []
    path.write_bytes(journal_line("a", ["x"], "c") + journal_line("b", ["y"], "c"))
    assert reader.follow() == [hash("a"), hash("b")] and reader.get("b", "c").paths == ("y",)
    assert reader.follow() == []
    writer.close(), reader.close()
