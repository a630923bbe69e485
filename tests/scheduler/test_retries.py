"""When a row is tried again, and that it is not tried for ever, by times that the test gives."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fastgen.scheduler.failure_policy import LONGEST_WAIT_S, decide
from fastgen.scheduler.retries import LONGEST_PAUSE_S, Retries
from fastgen.scheduler.routing import Group
from fastgen.types import Failed, ImageParams, Request

ROW = Request("a", "t2i", ("a",), ImageParams(64, 64, 4, 0.0, 0, 1), (64, 64), content="c")


@pytest.fixture
def group(settings):
    return Group(settings("t2i"), 0)


def tries(retries: Retries, group: Group, kind: str, retry_after: float = 0.0) -> list[float]:
    """The times at which a row is tried that always fails so, each try taking no time."""
    now, times = 0.0, [0.0]
    while True:
        failed = retries.note(ROW, Failed("a", kind, "why", retry_after=retry_after), now)
        if decide(retries.here(failed), alone=True, waited_s=retries.waited_s("a", now)) != "retry":
            assert failed.attempts == len(times) and failed.content == "c"
            return times
        retries.later(ROW, group, failed, now)
        now = retries.next_due()
        assert not list(retries.due(now - 0.01)) and list(retries.due(now)) == [(ROW, group)]
        times.append(now)


def test_a_row_that_is_only_asked_to_wait_is_tried_for_ten_minutes(group):
    times = tries(Retries(), group, "rate_limited")
    assert LONGEST_WAIT_S == 600 == times[-1]
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0] and max(pauses) == LONGEST_PAUSE_S


def test_a_service_that_asks_for_more_gets_a_last_try_at_the_end_of_that_time(group):
    assert tries(Retries(), group, "rate_limited", retry_after=3000.0) == [0.0, LONGEST_WAIT_S]
    assert tries(Retries(), group, "unavailable", retry_after=3000.0) == [0.0, LONGEST_WAIT_S]


def test_the_next_backend_has_the_whole_time_again(group):
    retries = Retries()
    first = tries(retries, group, "rate_limited")
    retries.elsewhere("a")
    assert retries.waited_s("a", 1e6) == 0.0
    failed = retries.note(ROW, Failed("a", "rate_limited", "why"), 5000.0)
    assert failed.attempts == len(first) + 1 and retries.waited_s("a", 5100.0) == 100.0


def test_other_failures_are_counted_by_tries(group):
    assert tries(Retries(), group, "transient") == [0.0, 0.5, 1.5]
