"""Whether a row or a device is at fault; the scenarios are in tests/scenarios/test_device_faults.py."""

from __future__ import annotations

import pytest

from fastgen.errors import EngineError
from fastgen.scheduler.blame import Blame
from fastgen.types import Failed, ImageParams, Request

PARAMS = ImageParams(64, 64, 4, 0.0, 0, 1)
TWO = ["cuda:0", "cuda:1"]
GROUP, OTHER = object(), object()


def row(id: str) -> Request:
    return Request(id, "t2i", ("a",), PARAMS, (64, 64))


def fault(blame: Blame, id: str, worker: str, workers=TWO) -> str:
    """A row is alone on a worker whose device fails."""
    blame.fault([row(id)], worker)
    verdict = blame.killed_alone(row(id), workers, device_fault=True)
    if verdict == "accused":
        blame.accuse(row(id), Failed(id, "poison", f"{id} did it"), GROUP)
    return verdict


def test_a_death_for_another_reason_is_the_rows_at_the_second_time():
    blame = Blame()
    assert [blame.killed_alone(row("a"), TWO, device_fault=False) for _ in range(2)] == ["suspect", "poison"]
    assert blame.poison_streak == 1 and blame.row_done() == [] and blame.poison_streak == 0


def test_a_row_needs_more_deaths_if_other_workers_die_between_its_own():
    blame, verdicts = Blame(), []
    for ids in ["a"], ["b", "c"], ["a"], ["b"], ["a"], ["a"]:
        blame.died_with(ids)
        if ids == ["a"]:
            verdicts.append(blame.killed_alone(row("a"), TWO, device_fault=False))
    assert verdicts == ["suspect", "suspect", "suspect", "poison"]


def test_one_device_accuses_nobody_while_there_is_another():
    blame = Blame()
    assert [fault(blame, "a", "cuda:0") for _ in range(4)] == ["suspect"] * 4
    assert blame.should_avoid([row("a")], "cuda:0", TWO) and not blame.should_avoid([row("a")], "cuda:1", TWO)
    assert not blame.should_avoid([row("a")], "cuda:0", ["cuda:0"]), "it is the only one that is left"
    assert fault(blame, "a", "cuda:1") == "accused"
    assert not any(blame.should_avoid([row("a")], worker, TWO) for worker in TWO)
    assert not blame.should_avoid([row("b")], "cuda:0", TWO)


def test_rows_of_a_batch_avoid_the_device_that_failed_with_them():
    blame = Blame()
    blame.fault([row("a"), row("b")], "cuda:0")
    assert blame.should_avoid([row("b"), row("c")], "cuda:0", TWO)


def test_an_accused_row_waits_until_another_succeeds():
    blame = Blame()
    assert [fault(blame, "a", "cuda:0", ["cuda:0"]) for _ in range(2)] == ["suspect", "accused"]
    assert [failed.id for failed in blame.row_done()] == ["a"]
    assert blame.row_done() == [] == blame.close()


def test_at_the_end_it_is_the_row_if_any_was_done_and_else_perhaps_the_device():
    for done in (True, False):
        blame = Blame()
        if done:
            blame.row_done()
        assert [fault(blame, "a", worker) for worker in TWO] == ["suspect", "accused"]
        if done:
            assert [failed.id for failed in blame.close()] == ["a"]
        else:
            with pytest.raises(EngineError, match=r"1 ended their engine process twice.*row a: a did it"):
                blame.close()


def test_accused_rows_go_elsewhere_if_their_backend_takes_no_more():
    blame = Blame()
    assert [fault(blame, "a", worker) for worker in TWO][-1] == "accused"
    assert blame.take_back(OTHER) == [] and [request.id for request in blame.take_back(GROUP)] == ["a"]
    assert blame.row_done() == []


def test_a_killer_outside_makes_a_row_need_more_deaths():
    blame = Blame()
    for _ in range(2):
        blame.died_without_rows()
    verdicts = [blame.killed_alone(row("a"), TWO, device_fault=False) for _ in range(4)]
    assert verdicts == ["suspect"] * 3 + ["poison"] and blame.kills(row("a")) == 4
    blame = Blame()
    blame.died_with(["x", "y"])
    blame.died_with(["y", "z"])
    blame.row_done(["x", "y"])
    assert blame.killed_alone(row("c"), TWO, device_fault=False) == "suspect"
    assert blame.killed_alone(row("c"), TWO, device_fault=False) == "poison", "z may still be the cause, or y at first"
    blame.row_done(["z"])
    assert [blame.killed_alone(row("d"), TWO, device_fault=False) for _ in range(3)] == ["suspect"] * 2 + ["poison"]
    for _ in range(100):
        blame.died_without_rows()
    verdicts = [blame.killed_alone(row("b"), TWO, device_fault=False) for _ in range(8)]
    assert verdicts == ["suspect"] * 7 + ["poison"], "a row that is at fault is still found"
