"""What follows from each kind of failure."""

from __future__ import annotations

from typing import get_args

import pytest

from fastgen.scheduler.failure_policy import (
    AGAIN,
    ANSWERED,
    CLOSING,
    LONGEST_WAIT_S,
    MAX_ATTEMPTS,
    MOVES,
    decide,
    moves,
)
from fastgen.types import Failed, Kind

# (kind, attempts, alone) -> action
TABLE = {
    ("oom", 1, False): "split",
    ("oom", 1, True): "give up",
    ("internal", 1, False): "split",
    ("internal", 1, True): "retry",
    ("internal", 2, True): "give up",
    ("transient", 1, False): "retry",
    ("transient", MAX_ATTEMPTS - 1, True): "retry",
    ("transient", MAX_ATTEMPTS, True): "give up",
    ("transient", MAX_ATTEMPTS, False): "give up",
    ("disk", 1, True): "stop",
    ("disk", 1, False): "stop",
    ("input", 1, True): "give up",
    ("input", 1, False): "give up",
    ("refused", 1, True): "give up",
    ("refused", 1, False): "give up",
    ("poison", 2, True): "give up",
    ("unavailable", 1, True): "retry",
    ("unavailable", MAX_ATTEMPTS, True): "give up",
    ("malformed", 2, True): "retry",
    ("malformed", MAX_ATTEMPTS, True): "give up",
    ("empty", 1, True): "retry",
    ("empty", 2, True): "give up",
    ("rate_limited", 1, True): "retry",
    ("rate_limited", 1000, True): "retry",
    **{(kind, 1, True): "give up" for kind in ("nan", "quota", "unauthorized", "gone", "unsupported", "truncated")},
}


@pytest.mark.parametrize(("kind", "attempts", "alone"), TABLE, ids=str)
def test_decisions(kind, attempts, alone):
    assert decide(Failed("a", kind, "why", attempts=attempts), alone) == TABLE[kind, attempts, alone]


def test_every_kind_is_decided():
    assert {kind for kind, _, _ in TABLE} == set(get_args(Kind))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_nothing_is_tried_for_ever(kind):
    failed = Failed("a", kind, "why", attempts=MAX_ATTEMPTS)
    assert decide(failed, alone=True, waited_s=LONGEST_WAIT_S) in ("give up", "stop")


@pytest.mark.parametrize("kind", ["rate_limited", "unavailable", "transient", "malformed"])
def test_a_row_waits_for_minutes_not_for_tries(kind):
    failed = Failed("a", kind, "why", attempts=1)
    assert decide(failed, alone=True, waited_s=LONGEST_WAIT_S - 1) == "retry"
    assert decide(failed, alone=True, waited_s=LONGEST_WAIT_S) == "give up"


def test_a_refusal_moves_on_only_where_the_user_says_so():
    refused = Failed("a", "refused", "why")
    assert not moves(refused, on_refusal=False) and moves(refused, on_refusal=True)
    for kind in ("input", "truncated"):
        assert not moves(Failed("a", kind, "why"), on_refusal=True), "bad everywhere"
    for kind in ("quota", "unavailable", "rate_limited", "unsupported", "gone"):
        assert moves(Failed("a", kind, "why"), on_refusal=False)


def test_the_tables_agree():
    assert CLOSING <= MOVES and CLOSING <= AGAIN and not CLOSING & ANSWERED
    assert "refused" not in MOVES | AGAIN
