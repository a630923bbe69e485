"""A failure -> what to do next. Pure: a few tables, no clock, no queues."""

from __future__ import annotations

from typing import Literal

from fastgen.types import Failed, Kind

Action = Literal["retry", "split", "give up", "stop"]
MAX_ATTEMPTS = 3
LONGEST_WAIT_S = 600.0
"""Maximum time from a row's first failure at a backend to its last try there: ten minutes, however often the service
asks it to wait. Other rows are in the journal meanwhile; only the table waits. A pause that a service asks of all
requests comes on top (see backends/remote/gate.py)."""
MAX_KILLS = 2
"""A row is poison if its worker dies this many times while the row is alone on it."""
MAX_USELESS, MAX_USELESS_AT_FIRST = 5, 3
"""A backend is closed after this many answers of a `CLOSING` kind in a row; the second number is for a backend that
never worked."""
OUTAGE_S, OUTAGE_WITH_FALLBACK_S = 600.0, 10.0
"""A backend that gives no answer for this long gets no more rows."""

CLOSING: frozenset[Kind] = frozenset({"quota", "unauthorized", "gone"})
"""The backend as a whole cannot continue; the row is not the reason."""
ANSWERED: frozenset[Kind] = frozenset({"input", "refused", "truncated", "empty", "malformed", "unsupported"})
"""The backend is reachable and working."""
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
"""What another backend may do better. A refusal moves on only if the user says so. A bad row is bad everywhere, and so
is a limit on tokens."""
AGAIN: frozenset[Kind] = CLOSING | {"input", "unavailable", "rate_limited"}
"""Rows that failed with these kinds are tried again by the next run of the same command: it was not their fault, or
trying costs nothing."""


def decide(failed: Failed, alone: bool, waited_s: float = 0.0) -> Action:
    """What to do when a backend reports a failure.

    Args:
        failed: the failure; its `attempts` counts the tries of this row at this backend so far, without those after
            which it was only asked to wait.
        alone: whether the row was alone in its batch.
        waited_s: seconds since the row first failed at this backend.
    Returns:
        "retry" it, "split" it from its batch mates and try again, "give up" on the row at this backend, or "stop" the
        run.
    """
    match failed.kind:
        case "oom":
            return "give up" if alone else "split"
        case "internal":
            # Unexpected, so a batch mate may be the cause.
            if not alone:
                return "split"
            return "retry" if failed.attempts < 2 else "give up"
        case "empty":  # rarely an accident
            return "retry" if failed.attempts < 2 else "give up"
        case "transient" | "unavailable" | "malformed":
            return "retry" if failed.attempts < MAX_ATTEMPTS and waited_s < LONGEST_WAIT_S else "give up"
        case "rate_limited":
            return "retry" if waited_s < LONGEST_WAIT_S else "give up"
        case "disk":
            return "stop"
        case _:  # input, nan, refused, poison, unsupported, truncated, quota, unauthorized, gone: a retry will not help
            return "give up"


def moves(failed: Failed, on_refusal: bool) -> bool:
    """Whether a row that one backend gave up on goes to the next one."""
    return failed.kind in MOVES or (on_refusal and failed.kind == "refused")
