"""Results in object storage: what is there when, who may write there, and what another machine finds."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fastgen
from fastgen.cli import main
from fastgen.errors import FastgenError, RunFolderError, SettingsError, StorageError
from fastgen.input import storage
from fastgen.input.storage import Patience
from fastgen.output import previous
from fastgen.output.journal import Journal
from fastgen.output.mirror import lease, sent, uploads
from fastgen.output.mirror.join import join
from fastgen.output.mirror.lease import Lease
from fastgen.output.mirror.listing import Listing
from fastgen.output.mirror.place import Place, state_folder
from fastgen.output.mirror.uploads import Uploads
from fastgen.types import Done, ImageParams
from tests.conftest import read_lines

URL = "memory://bkt/run"
PARAMS = ImageParams(64, 64, 1, 1.0, 0, 1)


@pytest.fixture
def place(memory):
    return Place(URL, Patience(5))


def state(tmp_path, name="state") -> Path:
    folder = tmp_path / name
    (folder / "images").mkdir(parents=True, exist_ok=True)
    return folder


def done(id: str, out: Path | None = None, data: bytes = b"picture", model="m") -> Done:
    path = f"images/{id}_0.png"
    if out:
        (out / path).write_bytes(data)
    return Done(id, "fake", model, (path,), PARAMS, 0.0, content=id, files=((len(data), "hash"),))


def commit(out: Path, *results: Done) -> None:
    journal = Journal(out / previous.JOURNAL)
    journal.append(list(results))
    journal.close()


def send(place: Place, out: Path, keeps: bool = False) -> Uploads:
    """Everything that is committed there."""
    state = sent.read(out, URL)
    held = Lease(place, state.writer)
    found = Uploads(place, out, state, held, keeps, lambda path: None)
    assert found.finish(30)
    held.release()
    return found


def join_again(place: Place, out: Path, fresh: bool = False) -> sent.Sent:
    """As at the start of a run."""
    state = sent.read(out, URL)
    join(place, out, state, fresh)
    sent.write(out, state)
    return state


def models(out: Path) -> dict[str, str]:
    """id -> model of the results that count."""
    journal = Journal(out / previous.JOURNAL, read_only=True)
    found = {result.id: result.model for result, newest in journal.results() if newest}
    journal.close()
    return found


def test_files_come_before_their_line_and_leave_this_machine_after_it(place, memory, tmp_path):
    out = state(tmp_path)
    commit(out, done("a", out), done("b", out))
    assert send(place, out).error is None
    assert memory.cat("/bkt/run/images/a_0.png") == b"picture"
    assert memory.cat("/bkt/run/journal/00000001.jsonl") == (out / previous.JOURNAL).read_bytes()
    assert not list((out / "images").iterdir())
    assert (state_now := sent.read(out, URL)).segments == 1
    assert state_now.offset == (out / previous.JOURNAL).stat().st_size
    commit(out, done("c", out))
    send(place, out, keeps=True)
    assert [
        line["rec"]["id"] for line in map(json.loads, memory.cat("/bkt/run/journal/00000002.jsonl").splitlines())
    ] == ["c"]
    assert (out / "images/c_0.png").exists()


def test_what_a_kill_left_here_is_removed_once_it_is_there(place, memory, tmp_path):
    out = state(tmp_path)
    commit(out, done("sent", out))
    send(place, out, keeps=True)
    commit(out, done("unsent", out))
    done("made, not committed", out)
    memory.pipe("/bkt/run/images/unsent_0.png", b"picture")  # sent, and its line was not
    send(place, out)
    assert [path.name for path in (out / "images").iterdir()] == ["made, not committed_0.png"]


def test_a_file_that_is_gone_is_told_and_its_row_stays(place, tmp_path):
    out = state(tmp_path)
    commit(out, done("a"), done("b", out))
    found = send(place, out)
    assert found.lost == ["images/a_0.png"] and found.error is None and found.waiting == 0


def test_a_server_that_goes_away_and_comes_back(place, tmp_path, monkeypatch):
    """Results wait, the run is told, and nothing is lost."""
    monkeypatch.setattr(storage, "growing", lambda **_: lambda state: 0.01)
    out, back, put = state(tmp_path), threading.Event(), place._system.put_file

    def away(*args, **more):
        if not back.is_set():
            raise ConnectionError("refused")
        return put(*args, **more)

    monkeypatch.setattr(place._system, "put_file", away)
    commit(out, *(done(f"{i}", out) for i in range(5)))
    running = Uploads(place, out, now := sent.read(out, URL), Lease(place, now.writer), False, lambda path: None)
    while running.waiting < 5 or not place.patience.waiting:
        assert running.error is None
    assert running.waiting == 5 and not place.sizes(sent.FOLDER) and place.patience.waiting == "refused"
    back.set()
    assert running.finish(30) and running.error is None and running.waiting == 0 and not place.patience.waiting
    assert set(place.sizes("images")) == {f"{i}_0.png" for i in range(5)}


def test_a_server_that_stays_away_ends_the_run_with_the_reason(place, tmp_path, monkeypatch):
    out = state(tmp_path)
    place.patience.deadline_s = 0
    monkeypatch.setattr(place._system, "put_file", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("refused")))
    commit(out, done("a", out))
    found = send(place, out)
    assert isinstance(found.error, StorageError) and "memory://bkt/run/images/a_0.png does not answer" in str(
        found.error
    )
    assert (out / "images/a_0.png").exists() and found.waiting == 1


def test_too_much_that_waits_is_said(place, tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_WAITING", 2)
    gate = threading.Event()
    put = place._system.put_file
    monkeypatch.setattr(place._system, "put_file", lambda *a, **m: gate.wait(30) and put(*a, **m))
    out = state(tmp_path)
    commit(out, *(done(f"{i}", out) for i in range(5)))
    running = Uploads(place, out, now := sent.read(out, URL), Lease(place, now.writer), False, lambda path: None)
    while running.waiting < 2:
        assert running.error is None
    assert running.is_full
    gate.set()
    assert running.finish(30) and not running.is_full and len(place.sizes("images")) == 5


def test_another_machine_goes_on_from_the_segments(place, tmp_path):
    here, there = state(tmp_path, "here"), state(tmp_path, "there")
    place.put(previous.RUN, b"{}")
    commit(here, done("a", here), done("b", here))
    send(place, here)
    join_again(place, there)
    assert (there / previous.RUN).read_bytes() == b"{}" and models(there) == {"a": "m", "b": "m"}
    commit(there, done("c", there))
    send(place, there)
    commit(here, done("d", here))  # the first one had this, unsent, when it was killed
    join_again(place, here)
    assert models(here) == {"a": "m", "b": "m", "c": "m", "d": "m"}
    send(place, here)
    assert sorted(place.sizes(sent.FOLDER)) == ["00000001.jsonl", "00000002.jsonl", "00000003.jsonl"]


def test_a_row_that_two_machines_made_counts_once(place, tmp_path):
    """The first was killed before it could send its result; the second one's is there."""
    here, there = state(tmp_path, "here"), state(tmp_path, "there")
    join_again(place, here)
    commit(here, done("a", here, b"first", model="first"))
    join_again(place, there)
    commit(there, done("a", there, b"second", model="second"))
    send(place, there)
    join_again(place, here)
    assert models(here) == {"a": "second"}
    send(place, here)
    assert place.read("images/a_0.png") == b"second" and list(place.sizes(sent.FOLDER)) == ["00000001.jsonl"]


@pytest.mark.parametrize("note", [b"", sent.msgspec.json.encode(sent.Sent(URL, "w"))], ids=["damaged", "old"])
def test_a_kill_between_a_segment_and_its_note_doubles_nothing(place, tmp_path, note):
    out = state(tmp_path)
    commit(out, done("a", out), done("b", out))
    send(place, out)
    (out / sent.NAME).write_bytes(note)
    assert join_again(place, out).segments == 1
    assert len(read_lines(out / previous.JOURNAL)) == 2
    send(place, out)
    assert list(place.sizes(sent.FOLDER)) == ["00000001.jsonl"]


def test_a_power_cut_that_takes_the_end_of_the_journal(place, tmp_path):
    out = state(tmp_path)
    commit(out, done("a", out), done("b", out))
    send(place, out)
    (out / previous.JOURNAL).write_bytes(b"")
    join_again(place, out)
    assert models(out) == {"a": "m", "b": "m"}


def test_two_machines_cannot_write_the_same_segment(place, tmp_path, monkeypatch):
    here, there = state(tmp_path, "here"), state(tmp_path, "there")
    monkeypatch.setattr(Lease, "renew", lambda self: None)
    for out in (here, there):
        join_again(place, out)
        commit(out, done("a", out, model=out.name))
    assert send(place, here).error is None
    assert "another machine has begun to write there" in str(send(place, there).error)
    assert (there / "images/a_0.png").exists(), "nothing of it is lost"


def test_a_segment_that_is_there_is_no_server_that_is_away(place, memory, monkeypatch):
    """Each file system says it in its own way; the same bytes are our own, whose answer was lost."""

    class HttpError(Exception):
        code = 412

    place.put("journal/00000001.jsonl", b"ours")
    for error in (FileExistsError(), HttpError()):
        monkeypatch.setattr(type(memory), "pipe_file", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        place.put_new("journal/00000001.jsonl", b"ours")
        with pytest.raises(FileExistsError):
            place.put_new("journal/00000001.jsonl", b"theirs")


def test_the_lease(place, monkeypatch):
    Lease(place, "one").take()
    Lease(place, "one").take()  # the same state folder, after a kill
    with pytest.raises(RunFolderError, match=r"is using it; wait until it has finished \(90 s if it was killed\)"):
        Lease(place, "two").take()
    later = {"lock.json": timedelta(0)}
    monkeypatch.setattr(
        Place, "changed", lambda self, name: datetime(2026, 1, 1, tzinfo=UTC) + later.get(name, timedelta(seconds=91))
    )
    (second := Lease(place, "two")).take()
    monkeypatch.setattr(lease, "RENEW_EVERY_S", 0)
    with pytest.raises(StorageError, match="has begun to write there"):
        Lease(place, "one").renew()
    Lease(place, "one").release()
    assert second.holder() is not None, "nobody releases what is another's"
    second.release()
    assert second.holder() is None and place.sizes() == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda memory, out: memory.pipe("/bkt/run/data.csv", b"x"), "contains data.csv but was not made by fastgen"),
        (lambda memory, out: memory.pipe("/bkt/run/journal/00000002.jsonl", b""), "00000001.jsonl is missing"),
        (lambda memory, out: sent.write(out, sent.Sent(URL, "w", 3, 0)), "journal/00000003.jsonl is no longer there"),
        (lambda memory, out: sent.write(out, sent.Sent("memory://b/other", "w")), "belongs to memory://b/other"),
    ],
)
def test_what_is_refused(place, memory, tmp_path, change, words):
    out = state(tmp_path)
    change(memory, out)
    with pytest.raises(RunFolderError, match=words):
        join_again(place, out)


def test_a_listing_is_asked_for_by_the_folder(place, memory):
    memory.pipe({"/bkt/run/images/a.png": b"1", "/bkt/run/images/00001/b.png": b"22"})
    listing = Listing(place)
    assert listing.has("images/a.png") and listing.has("images/a.png", 1) and not listing.has("images/a.png", 2)
    assert listing.has("images/00001/b.png", 2) and not listing.has("images/00002/c.png")
    memory.pipe("/bkt/run/images/new.png", b"1")
    listing.add("images/new.png")
    assert not listing.has("images/new.png")
    (remembers := Listing(place, remembers=True)).add("images/x.png")
    assert remembers.has("images/x.png")


def test_flags_that_need_a_disk(settings, memory, tmp_path):
    for flags in ({"shard": "1/2"}, {"webdataset": True}):
        with pytest.raises(SettingsError, match="needs a run folder on a disk"):
            settings("t2i", out=URL, **flags)
    with pytest.raises(SettingsError, match=r"--state .*only with -o s3://"):
        settings("t2i", out=tmp_path / "out", state=tmp_path / "state")
    with pytest.raises(SettingsError, match=r"^--rows s3://bkt/picks\.jsonl: must be on a disk"):
        settings("t2i", out=tmp_path / "out", only_rows=Path("s3://bkt/picks.jsonl"))
    with pytest.raises(SettingsError, match="name a folder in the bucket"):
        settings("t2i", out="memory://bkt")
    with pytest.raises(SettingsError, match="each image would be a commit"):
        settings("t2i", out="hf://datasets/owner/name")
    assert settings("t2i", out=URL).run.out == str(state_folder(URL))


def test_a_run_into_storage_and_again_from_elsewhere(memory, settings, go, tmp_path, rows_file):
    rows = [{"prompt": f"a {i}"} for i in range(6)] + [{"id": "bad", "prompt": "x", "size": "1x"}]
    given = rows_file(rows)
    local = go(settings("t2i", given, out=tmp_path / "local"))
    first = go(settings("t2i", given, out=URL, state=tmp_path / "state"))
    assert first.state == "finished" and first.counts["new"] == 6
    names = {path.removeprefix("/bkt/run/") for path in memory.find("/bkt/run")}
    assert {"run.json", "results.jsonl", "failures.jsonl", "journal/00000001.jsonl"} <= names
    assert lease.NAME not in names and len([name for name in names if name.startswith("images/")]) == 6

    def table(lines):
        return [{**line, "fastgen": {**line["fastgen"], "seconds": 0}} for line in lines]

    there = [json.loads(line) for line in memory.cat("/bkt/run/results.jsonl").splitlines()]
    assert table(there) == table(local.table) and not list((tmp_path / "state/images").rglob("*.png"))
    assert json.loads(memory.cat("/bkt/run/run.json"))["state"] == "finished"
    for where in ("state", "another machine"):
        again = go(settings("t2i", given, out=URL, state=tmp_path / where))
        assert again.counts["new"] == 0 and again.counts["done"] == 6 and table(again.table) == table(there)
    plan = fastgen.explain(settings("t2i", given, out=URL, state=tmp_path / "state"))
    assert (plan["done"], plan["buckets"], plan["warnings"]) == (6, [], [])
    plan = fastgen.explain(settings("t2i", given, out=URL, state=tmp_path / "nowhere"))
    assert plan["done"] == 0 and "does not ask what is there" in plan["warnings"][0]
    lost = there[2]["images"][0]
    memory.rm(f"/bkt/run/{lost}")
    again = go(settings("t2i", given, out=URL, state=tmp_path / "state"))
    assert again.counts["new"] == 1 and memory.exists(f"/bkt/run/{lost}"), "only what is missing there is made again"
    with pytest.raises(FastgenError, match="--fresh cannot move aside"):
        go(settings("t2i", given, out=URL, state=tmp_path / "third", fresh=True))
    with pytest.raises(RunFolderError, match=f"^-o {URL}: contains a run with other settings") as refused:
        go(settings("t2i", given, out=URL, state=tmp_path / "fourth", steps=7))
    assert "--fresh" not in str(refused.value), "it would be refused, too"
    memory.rm("/bkt/run", recursive=True)
    with pytest.raises(RunFolderError, match=r"00000001.jsonl is no longer there.*begin anew with --fresh"):
        go(settings("t2i", given, out=URL, state=tmp_path / "another machine"))
    anew = go(settings("t2i", given, out=URL, state=tmp_path / "another machine", fresh=True))
    assert anew.counts["new"] == 6 and len(memory.ls("/bkt/run/images")) == 6


def test_commands_that_look_at_a_run_in_storage(memory, settings, go, tmp_path, rows_file):
    """check, table and status, asked as their functions are; the others say how to copy it."""
    given = rows_file([{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"}, {"id": "c", "prompt": "refuse"}])
    go(settings("t2i", given, out=URL, state=tmp_path / "state"))
    run = CliRunner()

    def asked(*arguments: str) -> tuple[int, str]:
        done = run.invoke(main.app, list(arguments))
        return done.exit_code, done.output

    assert asked("check", URL) == (0, "2 done rows with 2 files checked: all is well\n")
    code, said = asked("status", URL)
    assert code == 0 and said.startswith(f"{URL}: finished, 2 done, 1 failed (said at 20")
    memory.pipe("/bkt/run/images/a_0.png", b"no picture")
    memory.rm("/bkt/run/images/b_0.png")
    code, said = asked("check", URL)
    assert code == 3 and "a_0.png has 10 bytes" in said and "row b: images/b_0.png is missing" in said
    memory.rm("/bkt/run/results.jsonl")
    assert asked("table", URL, "--to", "csv") == (0, f"{URL}/results.csv: 2 done, 1 failed\n")
    assert memory.cat("/bkt/run/results.jsonl").count(b"\n") == 3 and memory.exists("/bkt/run/results.csv")
    for command in (("export", URL, "--to", "hf"), ("view", URL), ("merge", URL)):
        code, said = asked(*command)
        assert code == 2 and "is in object storage; copy it here first" in " ".join(said.replace("│", "").split())
    code, said = asked("check", "memory://bkt/none")
    assert code == 2 and "RUN memory://bkt/none: there is no run.json" in said


def test_a_run_whose_storage_stays_away_goes_on_later(memory, settings, go, tmp_path, rows_file, monkeypatch):
    given = rows_file([{"id": f"r{i}", "prompt": "x"} for i in range(4)])
    chosen = settings("t2i", given, out=URL, state=tmp_path / "state")
    put, system = type(memory).put_file, type(memory)

    def away(self, local, remote, **more):
        if "/images/" in remote:
            raise ConnectionError("refused")
        return put(self, local, remote, **more)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "DEADLINE_S", 0)
        patched.setattr(system, "put_file", away)
        with pytest.raises(StorageError, match=r"memory://bkt/run/images/.* does not answer"):
            go(chosen)
    assert len(list((tmp_path / "state/images").glob("*.png"))) == 4
    again = go(chosen)
    assert again.state == "finished" and again.counts["new"] == 0, "made once, sent later"
    assert len(memory.ls("/bkt/run/images")) == 4 and not list((tmp_path / "state/images").glob("*.png"))


def test_no_image_in_storage_is_overwritten_by_another_row(memory, settings, go, tmp_path, rows_file):
    """Rows without an id are named by their number, and these have moved; the images are no longer here to be seen."""
    rows = [{"prompt": f"a {i}", "size": f"{64 + 16 * i}x64"} for i in range(3)]
    first = go(settings("t2i", rows_file(rows), out=URL, state=tmp_path / "state"))
    before = {path: memory.cat(f"/bkt/run/{path}") for row in first.table for path in row["images"]}
    moved = rows_file([{"prompt": "new", "size": "128x64"}, *rows])
    second = go(settings("t2i", moved, out=URL, state=tmp_path / "state"))
    assert second.counts["new"] == 1 and [row["images"] for row in second.table[1:]] == [
        r["images"] for r in first.table
    ]
    assert {path: memory.cat(f"/bkt/run/{path}") for path in before} == before
    assert second.table[0]["images"][0] not in before


def test_python_has_the_images_here(memory, settings, tmp_path):
    chosen = settings("t2i", out=URL, state=tmp_path / "state")
    [done] = fastgen.generate(chosen, [{"id": "a", "prompt": "x", "size": "64x64"}])
    assert done.images[0].size == (64, 64) and memory.exists("/bkt/run/images/a_0.png")


def test_python_reads_the_images_of_earlier_results_where_they_are(memory, settings, go, tmp_path, rows_file):
    """They have left this machine, or were made on another one."""
    given = rows_file([{"id": "a", "prompt": "x", "size": "64x64"}, {"id": "b", "prompt": "x", "size": "1x"}])
    go(settings("t2i", given, out=URL, state=tmp_path / "state"))
    for where in ("state", "another machine"):
        chosen = settings("t2i", given, out=URL, state=tmp_path / where)
        done, failed = fastgen.generate(chosen)
        assert done.earlier and done.image_paths == (f"{URL}/images/a_0.png",) and done.images[0].size == (64, 64)
        assert len(failed.images) == 0
