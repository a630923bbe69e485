"""How a run that does not reach its last row ends, by times that the test gives."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fastgen.errors import BudgetError, DiskError
from fastgen.scheduler.progress import Progress
from fastgen.scheduler.wind_down import GRACE_S, LAST_S, WindDown
from fastgen.workers.process import STOP_S


@pytest.fixture
def parts(settings):
    said, calls = [], []
    pool = SimpleNamespace(
        in_flight=True, cancel_pending=lambda: calls.append("cancel"), kill_busy=lambda reason: calls.append("kill")
    )
    progress = Progress(settings("t2i"), None, lambda event, **facts: said.append(facts["message"]))
    return SimpleNamespace(pool=pool, progress=progress, said=said, calls=calls, wind_down=WindDown(pool, progress))


def test_an_interrupted_run_waits_for_a_stated_time(parts):
    parts.progress.state = "interrupting"
    assert not parts.wind_down.is_over(100.0) and parts.calls == ["cancel"]
    assert f"{GRACE_S:.0f} s at most" in parts.said[0]
    assert not parts.wind_down.is_over(99.9 + GRACE_S) and parts.calls == ["cancel"]
    assert not parts.wind_down.is_over(100.0 + GRACE_S) and parts.calls == ["cancel", "kill"]
    assert not parts.wind_down.is_over(100.1 + GRACE_S) and parts.wind_down.is_over(100.0 + GRACE_S + LAST_S)
    assert len(parts.said) == 1 and len(parts.calls) == 2
    assert GRACE_S + STOP_S < 30, "then Slurm and Kubernetes kill what they have told to end"


def test_it_is_over_when_all_is_back(parts):
    parts.progress.state = "interrupting"
    assert not parts.wind_down.is_over(100.0)
    parts.pool.in_flight = False
    assert parts.wind_down.is_over(101.0) and "kill" not in parts.calls


@pytest.mark.parametrize(("error", "words"), [(DiskError("it is full"), 1), (BudgetError("it is spent"), 0)])
def test_a_run_that_ends_by_itself_waits_for_what_is_paid_until_it_is_interrupted(parts, error, words):
    parts.progress.end(error)
    parts.progress.end(BudgetError("another"))
    for now in (0.0, 100.0, 1e6):
        assert not parts.wind_down.is_over(now)
    assert parts.calls == ["cancel"] and len(parts.said) == words and parts.progress.ending is error
    parts.progress.state = "interrupting"
    assert not parts.wind_down.is_over(1e6 + 1) and not parts.wind_down.is_over(1e6 + 1 + GRACE_S)
    assert parts.calls == ["cancel", "kill"]
