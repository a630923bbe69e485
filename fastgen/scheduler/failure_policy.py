"""A failure -> what to do about it. Pure: a few tables, no clock, no queues."""

from __future__ import annotations

from typing import Literal

from fastgen.types import Failed, Kind

Action = Literal["retry", "split", "give up", "stop"]
MAX_ATTEMPTS = 3
MAX_WAITS = 30
"""Times that a service may ask the same row to come back later. Each wait is shared by all rows (see
backends/remote/gate.py)."""
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
    "nan",
    "poison",
}
"""What the next backend may do better. A refusal only where the user says so; a bad row is bad everywhere, and so is a
limit on tokens."""
AGAIN: frozenset[Kind] = CLOSING | {"input", "unavailable", "rate_limited"}
"""Rows that failed so are tried again by the next run of the same command: it was not their fault, or costs nothing."""


def decide(failed: Failed, alone: bool) -> Action:
    """What follows when a backend reports a failure.

    Args:
        failed: the failure; its `attempts` counts the tries of this row at this backend so far (for "rate_limited"
            those that were sent away).
        alone: whether the row was the only one of its batch.
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
            return "retry" if failed.attempts < MAX_ATTEMPTS else "give up"
        case "rate_limited":
            return "retry" if failed.attempts < MAX_WAITS else "give up"
        case "disk":
            return "stop"
        case _:  # input, nan, refused, poison, unsupported, truncated, quota, unauthorized, gone: no try will change it
            return "give up"


def moves(failed: Failed, on_refusal: bool) -> bool:
    """Whether a row that one backend has given up on goes to the next."""
    return failed.kind in MOVES or (on_refusal and failed.kind == "refused")
