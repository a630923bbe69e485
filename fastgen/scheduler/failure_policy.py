"""A failure -> what to do about it. Pure: a few tables, no clock, no queues."""

from __future__ import annotations

from typing import Literal

from fastgen.types import Failed, Kind

Action = Literal["retry", "split", "give up", "stop"]
MAX_ATTEMPTS = 3
LONGEST_WAIT_S = 600.0
"""From a row's first failure at a backend to its last try there: ten minutes, however often it is asked to come back
later. What is done meanwhile is in the journal; only the table waits. A pause that a service asks of everybody comes on
top (see backends/remote/gate.py)."""
MAX_KILLS = 2
"""A row that is alone on a worker when the worker dies, this many times, is poison."""
MAX_USELESS, MAX_USELESS_AT_FIRST = 5, 3
"""Answers of a `CLOSING` kind in a row that mean that it is over with a backend, and with one that never worked yet."""
OUTAGE_S, OUTAGE_WITH_FALLBACK_S = 600.0, 10.0
"""Without any answer from a backend; after that it gets no more rows."""

CLOSING: frozenset[Kind] = frozenset({"quota", "unauthorized", "gone"})
"""The backend as a whole cannot go on; it has nothing to do with the row."""
ANSWERED: frozenset[Kind] = frozenset({"input", "refused", "truncated", "empty", "malformed", "unsupported"})
"""The backend is there and working."""
MOVES: frozenset[Kind] = CLOSING | {
    "unavailable",
    "rate_limited",
    "transient",
    "internal",
    "malformed",
    "empty",
    "unsupported",
    "oom",
    "poison",
}
"""What the next backend may do better. A refusal only where the user says so; a bad row is bad everywhere, and so is a
limit on tokens."""
AGAIN: frozenset[Kind] = CLOSING | {"input", "unavailable", "rate_limited"}
"""Rows that failed so are tried again by the next run of the same command: it was not their fault, or costs nothing."""


def decide(failed: Failed, alone: bool, waited_s: float = 0.0) -> Action:
    """What follows when a backend reports a failure.

    Args:
        failed: the failure; its `attempts` counts the tries of this row at this backend so far, without those that
            were only asked to come back later.
        alone: whether the row was the only one of its batch.
        waited_s: since the row first failed at this backend.
    Returns:
        "retry" it, "split" it from its batch mates and try again, "give up" on the row at this backend, or "stop" the
        run.
    """
    match failed.kind:
        case "oom":
            return "give up" if alone else "split"
        case "internal":
            # Unforeseen, so it may be the fault of a batch mate.
            if not alone:
                return "split"
            return "retry" if failed.attempts < 2 else "give up"
        case "empty":  # seldom an accident
            return "retry" if failed.attempts < 2 else "give up"
        case "transient" | "unavailable" | "malformed":
            return "retry" if failed.attempts < MAX_ATTEMPTS and waited_s < LONGEST_WAIT_S else "give up"
        case "rate_limited":
            return "retry" if waited_s < LONGEST_WAIT_S else "give up"
        case "disk":
            return "stop"
        case _:  # input, refused, poison, unsupported, truncated, quota, unauthorized, gone: no try will change it
            return "give up"


def moves(failed: Failed, on_refusal: bool) -> bool:
    """Whether a row that one backend has given up on goes to the next."""
    return failed.kind in MOVES or (on_refusal and failed.kind == "refused")
