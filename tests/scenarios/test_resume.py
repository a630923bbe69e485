"""The same command goes on where it was; what is done is not done again, and what changed is made anew."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from fastgen.errors import ModelError, RunFolderError
from fastgen.scheduler.run import Run

ROWS = [{"prompt": f"picture {i}"} for i in range(6)]


def prompts(outcome) -> list[str]:
    return [row["prompt"] for row in outcome.table]


def pictures(outcome) -> dict[str, tuple]:
    """Prompt -> (seed, path, when the file was written)."""
    return {
        row["prompt"]: (row["fastgen"]["seed"], row["images"][0], (outcome.out / row["images"][0]).stat().st_mtime_ns)
        for row in outcome.table
    }


@pytest.fixture
def again(settings, rows_file, go):
    """again(rows, **flags): a run in the same folder."""

    def again(rows, **flags):
        return go(settings("t2i", rows_file(rows), **flags))

    return again


def test_a_finished_run_is_left_alone(again):
    first = again(ROWS)
    second = again(ROWS, gpus="cpu:2", batch_size=3)
    assert (second.table, second.made) == (first.table, first.made) and pictures(second) == pictures(first)
    assert not second.results and second.counts["done"] == 6 and not second.counts["new"]
    assert not [e for e in second.events if e["event"] == "lane_ready"], "no model is loaded for nothing"


def test_more_rows_under_a_larger_limit(again):
    first = again(ROWS, limit=2)
    assert prompts(first) == ["picture 0", "picture 1"]
    second = again(ROWS)
    assert second.counts["new"] == 4 and len(set(second.made)) == len(second.made) == 6
    assert prompts(second) == [row["prompt"] for row in ROWS]
    assert pictures(first).items() <= pictures(second).items()


def test_rows_may_come_go_and_move(again):
    first = again(ROWS)
    moved = [ROWS[5], {"prompt": "new"}, *ROWS[1:4]]
    second = again(moved)
    assert prompts(second) == [row["prompt"] for row in moved] and second.counts["new"] == 1
    before, after = pictures(first), pictures(second)
    assert all(after[prompt] == before[prompt] for prompt in after if prompt != "new")


def test_a_row_with_an_id_that_says_something_new_is_made_again(again):
    first = again([{"id": "x", "prompt": "old"}, {"id": "y", "prompt": "same"}])
    second = again([{"id": "x", "prompt": "new"}, {"id": "y", "prompt": "same"}])
    assert list(second.results) == ["x"] and prompts(second) == ["new", "same"]
    assert second.made == [*first.made, "x"]
    third = again([{"id": "x", "prompt": "new"}, {"id": "y", "prompt": "same"}])
    assert not third.results


def test_kept_rows_pass_through(again):
    kept = {"prompt": "kept", "images": ["mine.png"], "note": 1.50}
    outcome = again([ROWS[0], kept])
    assert outcome.table[1] == {**kept, "fastgen": outcome.table[1]["fastgen"]}
    assert outcome.table[1]["fastgen"]["status"] == "kept" and outcome.counts["kept"] == 1
    assert not again(outcome.table).results, "a finished table has nothing left to do"


def test_a_lost_picture_is_made_again(again):
    first = again(ROWS)
    lost = first.table[2]
    (first.out / lost["images"][0]).unlink()
    second = again(ROWS)
    assert list(second.results) == [lost["fastgen"]["id"]] and (first.out / lost["images"][0]).exists()


def test_failed_rows_wait_for_retry_failed(again):
    rows = [*ROWS[:2], {"id": "bad", "prompt": "refuse"}]
    first = again(rows)
    second = again(rows)
    assert (second.made, second.failures, second.counts["failed"]) == (first.made, first.failures, 1)
    third = again(rows, retry_failed=True)
    assert third.made == [*first.made, "bad"] and third.counts["new"] == 0 and third.counts["failed"] == 1


def test_mended_rows_run_without_being_asked(again):
    first = again([{"id": "a", "prompt": ""}, {"id": "b", "prompt": "good"}])
    assert [row["id"] for row in first.failures] == ["a"]
    second = again([{"id": "a", "prompt": "better"}, {"id": "b", "prompt": "good"}])
    assert list(second.results) == ["a"] and not second.failures


def test_a_picture_that_was_missing_may_turn_up(settings, rows_file, go, tmp_path):
    from PIL import Image

    path = rows_file([{"prompt": "a", "image": "late.png"}])
    assert go(settings("edit", path)).counts["failed"] == 1
    Image.new("RGB", (64, 64)).save(tmp_path / "late.png")
    assert go(settings("edit", path)).counts["done"] == 1


def test_known_bad_rows_are_said_again_but_not_written_again(again):
    rows = [ROWS[0], {"prompt": ""}]
    first = again(rows)
    second = again(rows)
    assert second.made == first.made and second.counts["failed"] == 1
    assert [e["kind"] for e in second.events if e["event"] == "row_failed"] == ["input"]


def test_failures_can_be_fed_back_in(again, settings, go, tmp_path):
    first = again([ROWS[0], {"prompt": "refuse", "seed": 5, "note": None}, {"prompt": "", "id": "empty"}])
    failures = tmp_path / "out/failures.jsonl"
    second = go(settings("t2i", failures, out=tmp_path / "second"))
    for before, after in zip(first.failures, second.table, strict=True):
        for row in (before, after):  # names the place in its own file
            row["fastgen"]["error"].pop("message")
        assert after == before
    mended = failures.read_text().replace("refuse", "fine").replace('"prompt":""', '"prompt":"mended"')
    (tmp_path / "mended.jsonl").write_text(mended)
    third = go(settings("t2i", tmp_path / "mended.jsonl", out=tmp_path / "third"))
    assert [row["fastgen"]["status"] for row in third.table] == ["done", "done"]
    assert [row["fastgen"]["id"] for row in third.table] == [row["fastgen"]["id"] for row in first.failures]


def test_fresh_starts_over(again):
    first = again(ROWS)
    (first.out / "mine.txt").write_text("not fastgen's")
    second = again(ROWS[:2], fresh=True, steps=9)
    assert len(second.made) == 2 and second.table[0]["fastgen"]["steps"] == 9
    assert len(list((second.out / "images").iterdir())) == 2 and (second.out / "mine.txt").exists()


def test_fresh_may_be_disturbed(again, monkeypatch):
    again(ROWS)

    def refuse(path, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as disturbed, pytest.raises(RunFolderError, match="cannot write there"):
        disturbed.setattr(shutil, "rmtree", refuse)
        again(ROWS, fresh=True)
    assert again(ROWS, fresh=True).counts["done"] == 6


def test_other_settings_are_refused_with_the_difference(again):
    first = again(ROWS[:1])
    with pytest.raises(RunFolderError, match=r"steps: 4 before, 5 now.*--fresh") as caught:
        again(ROWS[:1], steps=5, seed=1)
    assert "seed: 0 before, 1 now" in str(caught.value) and "guidance" not in str(caught.value)
    assert not again(ROWS[:1]).results and (first.out / "results.jsonl").exists()


def test_a_folder_of_someone_else_is_left_alone(again, tmp_path):
    (tmp_path / "out/images").mkdir(parents=True)
    for fresh in (False, True):
        with pytest.raises(RunFolderError, match="not made by fastgen"):
            again(ROWS, fresh=fresh)
    assert (tmp_path / "out/images").exists()


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")], ids=["gone", "torn"])
def test_without_run_json_nothing_is_guessed(again, damage):
    damage(again(ROWS[:1]).out / "run.json")
    with pytest.raises(RunFolderError, match=r"run\.json is missing or damaged.*--fresh"):
        again(ROWS[:1])
    assert again(ROWS[:1], fresh=True).counts["new"] == 1


def test_a_torn_journal_loses_its_last_row_alone(again):
    first = again(ROWS)
    journal = first.out / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    second = again(ROWS)
    assert list(second.results) == [first.made[-1]] and prompts(second) == prompts(first)
    assert not [e for e in second.events if e["event"] == "warning"]


def test_a_damaged_journal_line_is_told_and_its_row_made_again(again):
    first = again(ROWS)
    journal = first.out / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"seed":', b'"sead":')
    journal.write_bytes(b"".join(lines))
    events = []
    # Read straight away: the damaged line stays in the file.
    run = Run(_settings_of(first.out), lambda event, **facts: events.append({"event": event, **facts}))
    assert [result.id for result in run.results()] == [first.made[2]]
    assert "1 damaged journal line" in next(e["message"] for e in events if e["event"] == "warning")
    table = [json.loads(line) for line in (first.out / "results.jsonl").read_text().splitlines()]
    assert [{**row, "fastgen": None} for row in table] == [{**row, "fastgen": None} for row in first.table]


def _settings_of(out: Path):
    from fastgen.resolver import resolve

    return resolve("t2i", out.parent / "rows.jsonl", backend="fake", gpus="cpu", out=out)


def test_two_runs_do_not_share_a_folder(settings, rows_file, again):
    run = Run(settings("t2i", rows_file([{"prompt": "a"}, {"prompt": "b"}]), batch_size=1))
    results = run.results()
    next(results)
    with pytest.raises(RunFolderError, match=r"another fastgen \(process \d+\)"):
        Run(settings("t2i", rows_file(ROWS)))
    results.close()
    assert again(ROWS).counts["done"] == 6


def test_another_input_keeps_the_table_of_the_first(go, settings, rows_file, tmp_path):
    go(settings("t2i", rows_file([{"id": "a", "prompt": "a"}], "a.jsonl")))
    before = (tmp_path / "out/results.jsonl").read_bytes()
    events = go(settings("t2i", rows_file([{"id": "b", "prompt": "b"}], "b.jsonl"))).events
    assert (tmp_path / "out/results-1.jsonl").read_bytes() == before
    assert any("results-1.jsonl" in event.get("message", "") for event in events)


@pytest.mark.parametrize("name", ["results.jsonl", "failures.jsonl"])
def test_a_table_of_the_run_is_not_its_input(go, settings, rows_file, tmp_path, name):
    go(settings("t2i", rows_file([{"prompt": "a"}, {"prompt": ""}])))
    before = (tmp_path / "out/results.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match="would be overwritten"):
        go(settings("t2i", tmp_path / "out" / name))
    assert (tmp_path / "out/results.jsonl").read_bytes() == before


def test_failed_edits_find_their_pictures_again(go, settings, rows_file, tmp_path):
    """failures.jsonl lies in the run folder; its relative paths still start where the input's did."""
    from PIL import Image

    rows = [{"image": "late.png", "prompt": "night"}, {"image": "none.png", "prompt": "night"}]
    assert go(settings("edit", rows_file(rows))).counts["failed"] == 2
    Image.new("RGB", (64, 64)).save(tmp_path / "late.png")
    again = go(settings("edit", tmp_path / "out/failures.jsonl", out=tmp_path / "again"))
    assert (again.counts["done"], again.counts["failed"]) == (1, 1)


def test_settings_that_led_nowhere_bind_nobody(go, settings, rows_file, monkeypatch):
    path = rows_file([{"prompt": "a"}])
    with monkeypatch.context() as broken, pytest.raises(ModelError):
        broken.setenv("FASTGEN_FAKE_CANNOT_START", "the folder is damaged")
        go(settings("t2i", path, steps=4))
    assert go(settings("t2i", path, steps=5)).counts["done"] == 1


def test_a_lora_that_is_trained_again_is_another_one(settings, tmp_path):
    file = tmp_path / "style.safetensors"
    file.write_bytes(b"1" * 100)
    before = settings("t2i", lora=[str(file)]).fingerprint()
    assert settings("t2i", lora=[str(file)]).fingerprint() == before
    file.write_bytes(b"2" * 100)
    assert settings("t2i", lora=[str(file)]).fingerprint() != before


def test_a_setting_that_is_left_out_now_is_a_difference_too(settings, rows_file, go):
    """Words of APIs are in the fingerprint only where they were given."""
    api = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1"}
    path = rows_file(ROWS)
    go(settings("t2i", path))
    run = json.loads((Path(settings("t2i", path).run.out) / "run.json").read_text())
    before = settings("t2i", path, **api, background="transparent")
    run["settings"] = before.fingerprint()
    (Path(before.run.out) / "run.json").write_text(json.dumps(run))
    with pytest.raises(RunFolderError, match="background: 'transparent' before, None now"):
        next(Run(settings("t2i", path, **api), lambda event, **facts: None).results())
