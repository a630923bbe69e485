"""The loop on real processes: whatever one row does to its engine, the others are done, and every failure has its
kind."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastgen.errors import DiskError, EngineError, ModelError, SettingsError
from fastgen.scheduler import worker_pool
from fastgen.scheduler.batches_out import BatchesOut
from fastgen.scheduler.run import Run
from fastgen.types import Done, ImageParams

GOOD = [{"id": f"good-{i}", "prompt": f"picture {i}"} for i in range(6)]


@pytest.fixture
def once(settings, rows_file, go):
    """once(rows, **flags): one undisturbed run of six good rows around these, batches of four."""

    def once(*rows, task="t2i", **flags):
        given = [*GOOD[:3], *rows, *GOOD[3:]]
        outcome = go(settings(task, rows_file(given), **{"batch_size": 4, **flags}))
        assert [row["id"] for row in outcome.table] == [row["id"] for row in given], "one line a row, in order"
        for row in outcome.table:
            if row["id"].startswith("good"):
                assert row["fastgen"]["status"] == "done", "a bad row harmed another one"
            assert ("images" in row) == (row["fastgen"]["status"] == "done")
            for path in row.get("images", []):
                assert (outcome.out / path).stat().st_size
        assert outcome.failures == [row for row in outcome.table if row["fastgen"]["status"] == "failed"]
        assert Counter(outcome.made) == Counter(row["id"] for row in given), "one commit a row"
        assert outcome.state == "finished" and outcome.counts["rows"] == len(given)
        return outcome

    return once


def count(outcome, event: str) -> int:
    return sum(e["event"] == event for e in outcome.events)


def test_all_good(once):
    outcome = once()
    assert outcome.counts["done"] == outcome.counts["new"] == outcome.counts["images"] == 6 and not outcome.failures
    assert count(outcome, "lane_ready") == 1 and not (outcome.out / ".partial").exists()


def test_a_row_that_kills_its_engine_twice_alone_is_poison(once):
    outcome = once({"id": "bad", "prompt": "crash"})
    failed = outcome.results["bad"]
    assert failed.kind == "poison" and "SIGKILL" in failed.message and "2 times" in failed.message
    assert count(outcome, "lane_died") >= 2 and outcome.counts["failed"] == 1
    [event] = [e for e in outcome.events if e["event"] == "row_failed"]
    assert (event["id"], event["kind"]) == ("bad", "poison")


def test_attempts_count_what_the_row_itself_did(once):
    """A worker may be killed from outside: that must not show in the table, which equals that of a calm run."""
    outcome = once({"id": "bad", "prompt": "crash"}, {"id": "once", "prompt": "crash:once"})
    assert outcome.results["bad"].attempts == 2
    assert isinstance(outcome.results["once"], Done) and outcome.results["once"].attempts == 1


def test_two_poisons_in_one_batch_are_both_found(once):
    outcome = once({"id": "bad-1", "prompt": "crash"}, {"id": "bad-2", "prompt": "crash"}, gpus="cpu:2")
    assert {row["id"]: row["fastgen"]["error"]["kind"] for row in outcome.failures} == {
        "bad-1": "poison",
        "bad-2": "poison",
    }


def test_a_crash_that_does_not_come_back_costs_nothing(once):
    outcome = once({"id": "once", "prompt": "crash:once"})
    assert isinstance(outcome.results["once"], Done) and count(outcome, "lane_died") == 1


def test_out_of_memory_is_split_until_it_fits(once):
    outcome = once(*({"id": f"big-{i}", "prompt": "oom"} for i in range(3)))
    assert not outcome.failures and count(outcome, "lane_died") == 0


def test_what_never_fits_is_failed(once):
    outcome = once({"id": "bad", "prompt": "oom:always"})
    assert [row["fastgen"]["error"]["kind"] for row in outcome.failures] == ["oom"]


def test_a_refusal_is_final(once):
    outcome = once({"id": "bad", "prompt": "refuse"})
    assert (outcome.results["bad"].kind, outcome.results["bad"].attempts) == ("refused", 1)


def test_an_unforeseen_error_splits_the_batch(once):
    outcome = once({"id": "odd", "prompt": "broken"})
    assert not outcome.failures, "alone it works"


def test_a_passing_failure_is_tried_again(once):
    outcome = once({"id": "flaky", "prompt": "flaky"})
    assert isinstance(outcome.results["flaky"], Done) and outcome.results["flaky"].attempts == 3


def test_every_trouble_at_once_on_two_engines(once):
    words = ["crash", "crash:once", "oom", "oom:always", "slow", "refuse", "broken"]
    outcome = once(*({"id": word, "prompt": word} for word in words), gpus="cpu:2", batch_size=8)
    kinds = {row["id"]: row["fastgen"]["error"]["kind"] for row in outcome.failures}
    assert kinds == {"crash": "poison", "oom:always": "oom", "refuse": "refused"}


def test_several_pictures_a_row_and_several_prompts(once):
    turns = [{"role": "user", "content": text} for text in "ab"]
    outcome = once({"id": "many", "conversations": turns, "n": 3, "size": "96x64"})
    paths = outcome.results["many"].paths
    assert len(set(paths)) == 6 and outcome.counts["images"] == 12
    assert (outcome.results["many"].params.width, outcome.results["many"].params.height) == (96, 64)


def test_duplicate_rows_are_each_made(settings, rows_file, go):
    outcome = go(settings("t2i", rows_file([{"prompt": "same"}] * 3)))
    assert (
        len({row["images"][0] for row in outcome.table}) == len({row["fastgen"]["seed"] for row in outcome.table}) == 3
    )


def test_a_full_disk_stops_the_run_and_what_is_done_is_safe(settings, rows_file, go, table):
    path = rows_file([*GOOD[:2], {"id": "bad", "prompt": "slow disk"}, *GOOD[2:]])
    resolved = settings("t2i", path, batch_size=1)
    with pytest.raises(DiskError, match="No space left"):
        go(resolved)
    safe = [line["rec"]["id"] for line in table(Path(resolved.run.out) / "journal.jsonl")]
    assert "good-0" in safe and "bad" not in safe and not (Path(resolved.run.out) / "results.jsonl").exists()
    rows_file(GOOD)
    outcome = go(resolved)
    assert outcome.counts["new"] == 6 - len(safe) and len(outcome.made) == len(set(outcome.made)) == 6


def test_an_engine_that_cannot_start_ends_the_run_at_once(settings, rows_file, monkeypatch):
    monkeypatch.setenv("FASTGEN_FAKE_CANNOT_START", "the model is made of cheese")
    run = Run(settings("t2i", rows_file(GOOD), gpus="cpu:2"))
    with pytest.raises(ModelError, match="made of cheese"):
        list(run.results())
    assert not run.counts["new"]


def test_rows_that_all_kill_their_engine_are_not_to_blame(settings, rows_file, monkeypatch, table):
    monkeypatch.setattr(worker_pool, "MAX_POISON_STREAK", 2)
    resolved = settings("t2i", rows_file([{"id": f"{i}", "prompt": "crash"} for i in range(4)]), batch_size=1)
    with pytest.raises(EngineError, match="the rows are not the cause"):
        list(Run(resolved).results())
    blamed = [line["rec"]["id"] for line in table(Path(resolved.run.out) / "journal.jsonl")]
    assert len(blamed) < 4


def test_an_engine_killed_from_outside_is_started_again(settings, rows_file):
    rows = rows_file([{"id": f"{i}", "prompt": "slow:0.05"} for i in range(16)])
    pids, died = [], []

    def emit(event, **facts):
        if event == "lane_ready":
            pids.append(facts["pid"])
        if event == "lane_died":
            died.append(facts["reason"])

    run = Run(settings("t2i", rows, batch_size=2), emit)  # a second worker could be done before the first is back
    results = []
    for result in run.results():
        if not results:
            os.kill(pids[0], signal.SIGKILL)
        results.append(result)
    assert all(isinstance(result, Done) for result in results) and len(results) == 16
    assert len(died) == 1 and "SIGKILL" in died[0] and len(pids) == 2


def test_answers_that_wait_are_committed_together_and_before_an_error(settings, rows_file):
    run = Run(settings("t2i", rows_file([{"prompt": "a"}])))
    results = [Done(str(i), "fake", "fake", (), ImageParams(8, 8, 1, 0.0, 0, 1), 0.0) for i in range(3)]
    writes, append = [], run._journal.append

    def settle(number: int):
        if number == 3:
            raise EngineError("no engine is left")
        yield from run._progress.commit([results[number]])

    run._journal.append = lambda committed: [writes.append(len(committed)), append(committed)]
    run._back.settle = settle
    try:
        assert list(run._settle([(0,), None, (1,)])) == results[:2], "None is for a run that was interrupted"
        with pytest.raises(EngineError):
            list(run._settle([(2,), (3,)]))
        assert writes == [2, 1] and run._journal.get("2", "") == results[2]
    finally:
        run._journal.close()
        run._spool.close()
        run._ledger.close()
        run.folder.close()


def test_leaving_early_ends_the_engines(settings, rows_file):
    import psutil

    run = Run(settings("t2i", rows_file([{"prompt": "a"}, {"prompt": "slow:600"}]), batch_size=1))
    results = run.results()
    next(results)
    children = psutil.Process().children(recursive=True)
    assert children
    results.close()
    assert not psutil.wait_procs(children, timeout=30)[1]
    Run(settings("t2i", rows_file([{"prompt": "a"}]))).folder.close()


def test_a_file_without_rows_is_wrong_usage(settings, rows_file):
    run = Run(settings("t2i", rows_file([b"", b"  "])))
    with pytest.raises(SettingsError, match="holds no rows"):
        list(run.results())


def test_run_json_says_how_it_went(settings, rows_file, go):
    import json

    outcome = go(settings("t2i", rows_file([{"prompt": "a"}, {"prompt": ""}])))
    about = json.loads((outcome.out / "run.json").read_text())
    assert about["state"] == "finished" and about["counts"] == dict(outcome.counts)
    assert about["counts"] | {"rows": 2, "done": 1, "failed": 1, "new": 1, "images": 1} == about["counts"]
    assert about["settings"]["steps"] == 4 and about["profile"]["name"] and about["devices"][0]["name"] == "cpu"


@pytest.mark.parametrize(
    ("waits", "ready", "closed", "retries", "wanted"),
    [
        (3, False, "", 0, True),
        (3, True, "", 0, False),
        (0, False, "", 0, False),
        (3, False, "gone", 0, False),
        (0, True, "", 2, True),
    ],
)
def test_what_costs_nothing_is_waited_for_when_the_money_is_spent(waits, ready, closed, retries, wanted):
    """A backend that still loads has rows of its own; only where there is none does --max-cost end the run."""

    class Group(list):
        __hash__ = object.__hash__

    free, paid = Group(range(waits)), Group(range(5))
    free.closed, paid.closed = closed, ""
    states = [SimpleNamespace(group=free, ready=ready), SimpleNamespace(group=paid, ready=True)]
    out = SimpleNamespace(_pool=SimpleNamespace(states=states), _retries=range(retries))
    assert BatchesOut._may_go_on(out, {paid: None}) is wanted


@pytest.mark.parametrize("usd", [1.5, 0, "1.5", None, float("nan")])
def test_money_that_an_earlier_run_reported_is_not_forgotten_with_the_ledger(settings, rows_file, go, usd):
    path = rows_file(GOOD)
    out = go(settings("t2i", path)).out
    about = json.loads((out / "run.json").read_text())
    for fresh in (False, False, True):
        (out / "run.json").write_text(json.dumps({**about, "cost_usd": usd}))
        warned = [str(event.get("message")) for event in go(settings("t2i", path, fresh=fresh)).events]
        assert any("spending.jsonl is missing, but the results cost 1.5000 USD" in words for words in warned) == (
            usd == 1.5 and not fresh
        )
        (out / "spending.jsonl").unlink(missing_ok=True)
