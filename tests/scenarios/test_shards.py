"""Parts of a run (--shard): killed, repeated, run twice at the same time, and with another N; the table is that of one
run."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

import fastgen
from fastgen.cli.main import app
from fastgen.errors import RunFolderError, SettingsError
from fastgen.output import shards
from fastgen.output.check import Check
from fastgen.scheduler.run import Run
from tests.conftest import read_lines

# The two rows without an id are equal, and told apart by their order.
ROWS = [{"id": f"r{i}", "prompt": f"picture {i}"} for i in range(9)]
ROWS += [{"prompt": "the same"}, {"prompt": "the same"}, {"id": "bad", "prompt": "refuse"}]


def stated(out: Path) -> list[tuple]:
    """Of each row of the table: prompt, status, seed and the content of its images."""
    found = []
    for row in read_lines(out / "results.jsonl"):
        about = row["fastgen"]
        pictures = [(out / path).read_bytes() for path in row.get("images", ())]
        found.append((row["prompt"], about["id"], about["status"], about.get("seed"), pictures))
    return found


@pytest.fixture
def part(settings, rows_file):
    path = rows_file(ROWS)

    def make(shard: str, **flags) -> Run:
        return Run(settings("t2i", path, shard=shard, **flags))

    return make


def test_parts_make_the_table_of_one_run(part, settings, rows_file, tmp_path):
    list(Run(settings("t2i", rows_file(ROWS), out=tmp_path / "alone")).results())
    out = tmp_path / "out"

    first = part("1/3")
    assert len(list(first.results())) == first.counts["rows"] == 4
    assert not (out / "results.jsonl").exists(), "others are missing"

    killed = part("2/3", batch_size=1).results()
    next(killed)
    with pytest.raises(RunFolderError, match="another fastgen"):
        part("2/3")
    with pytest.raises(RunFolderError, match=r"--shard 1/5: part 2/3 is at work"):
        part("1/5")
    assert [one.state for one in shards.status(out)] == ["finished", "running"]
    with pytest.raises(RunFolderError, match=r"part 2/3 is at work, and both would make the same rows; wait"):
        part("")
    killed.close()
    assert [one.state for one in shards.status(out)] == ["finished", "stopped"]
    with pytest.raises(RunFolderError, match=r"type fastgen merge .*/out first"):
        part("")

    merged = CliRunner().invoke(app, ["merge", str(out)])
    done = sum(one.counts["done"] + one.counts["failed"] for one in shards.status(out))
    assert merged.exit_code == 3 and f"{len(ROWS) - done} pending" in merged.stdout

    made = [id for number in range(1, 6) for id in (result.id for result in part(f"{number}/5").results())]
    assert len(made) == len(set(made)) == len(ROWS) - done, "what the parts of three have done is not made again"
    assert stated(out) == stated(tmp_path / "alone"), "merged by the last part"
    assert list(part("2/3").results()) == [], "all of it is done elsewhere"

    check = Check(out)
    assert not list(check) and check.rows == len(ROWS) - 1
    before = (out / "results.jsonl").read_bytes(), (out / "journal.jsonl").read_bytes()
    assert CliRunner().invoke(app, ["merge", str(out)]).stdout.rstrip().endswith("11 done, 1 failed")
    assert before == ((out / "results.jsonl").read_bytes(), (out / "journal.jsonl").read_bytes())
    said = CliRunner().invoke(app, ["status", str(out)]).stdout
    assert len(said.splitlines()) == 7 and re.search(r"part 1/3: finished, 4 done", said)

    whole = Run(settings("t2i", rows_file(ROWS)))
    with pytest.raises(RunFolderError, match="a run of all rows is at work"):
        part("1/7")
    assert list(whole.results()) == [] and whole.counts["done"] == len(ROWS) - 1, "a run folder like any other"

    anew = part("2/5", fresh=True)
    assert {result.id for result in anew.results()} == {"r1", "r6", "bad"}, "though parts of 3 have done them"


def test_parts_that_start_at_once(part, tmp_path, monkeypatch):
    """Each looks for the other before either has a folder: one of them is refused when it has its own."""
    late = part("1/3").results()
    next(late)
    begun, looked = shards.at_work, []
    monkeypatch.setattr(shards, "at_work", lambda run: begun(run) if looked else looked.append(run) or [])
    with pytest.raises(RunFolderError, match="part 1/3 is at work"):
        part("2/5")
    late.close()
    assert [one.part.of for one in shards.status(tmp_path / "out")] == [3], "the other one has written nothing"


def test_merges_at_once_wait_for_each_other(part, tmp_path):
    out = tmp_path / "out"
    for number in (1, 2):
        list(part(f"{number}/2").results())
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: shards.merge(out, patience_s=60), range(8)))
    assert counts == [{"done": 11, "failed": 1}] * 8 and not (out / ".partial").exists()


def test_a_part_may_have_no_rows(part, tmp_path):
    for number in (1, 13):
        list(part(f"{number}/20").results())
    assert [one.counts["done"] for one in shards.status(tmp_path / "out")] == [1, 0]


def test_parts_of_other_settings_are_refused(part, settings, rows_file, tmp_path):
    list(part("1/3").results())
    with pytest.raises(RunFolderError, match=r"part 1/3 was run with another seed; use the same settings"):
        part("2/3", seed=7)
    list(part("2/3").results())
    place = tmp_path / "out/shards/2-of-3/run.json"
    about = json.loads(place.read_text())
    place.write_text(json.dumps(about | {"input": "another.jsonl"}))
    with pytest.raises(RunFolderError, match=r"2-of-3 and 1-of-3 belong to different runs: input is 'another.jsonl'"):
        shards.merge(tmp_path / "out")
    with pytest.raises(RunFolderError, match="has no parts"):
        shards.merge(tmp_path)


def test_which_part_is_asked_for(settings, rows_file, monkeypatch, tmp_path):
    path = rows_file(ROWS)
    for wrong in ("0/3", "4/3", "3", "a/b", "1/"):
        with pytest.raises(SettingsError, match=f"--shard {wrong}"):
            settings("t2i", path, shard=wrong)
    with pytest.raises(SettingsError, match="no array job of Slurm"):
        settings("t2i", path, shard="slurm")
    with pytest.raises(SettingsError, match="every part reads INPUT"):
        settings("t2i", shard="1/2")

    def array(**said: int) -> None:
        for name, value in said.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))

    array(ID=3, COUNT=3)
    assert settings("t2i", path, shard="slurm").run.shard == (3, 3)
    for first in (0, 1):
        array(ID=first, MIN=first, MAX=first + 2, STEP=1, COUNT=3)
        assert settings("t2i", path, shard="slurm").run.shard == (1, 3)
    for id in (1, 7):  # sbatch --array=1,3,7
        array(ID=id, MIN=1, MAX=7, STEP=1, COUNT=3)
        with pytest.raises(SettingsError, match=f"task {id} is none of the 3 from 1 on; the array must be a range"):
            settings("t2i", path, shard="slurm")
    array(ID=14, MIN=10, MAX=16, STEP=2, COUNT=4)
    resolved = settings("t2i", path, shard="slurm")
    assert resolved.run.shard == (3, 4) and resolved.run.out == str(tmp_path / "out/shards/3-of-4")
    plan = fastgen.explain(resolved)
    assert plan["rows"] == 3
    assert replace(resolved.run, shard=None, out="") == replace(settings("t2i", path).run, out="")


def test_the_last_part_writes_what_the_flags_of_all_ask_for(part, tmp_path):
    for shard in ("1/2", "2/2"):
        list(part(shard, table="csv", webdataset=True).results())
    out = tmp_path / "out"
    assert len((out / "results.csv").read_text("utf-8").splitlines()) == 1 + len(ROWS)
    assert list((out / "webdataset").glob("shard-*.tar"))
