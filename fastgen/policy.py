"""A failure -> what to do about it. Pure: one table, no clock, no queues."""

from __future__ import annotations

from typing import Literal

from fastgen.types import Failed

Action = Literal["retry", "split", "give up", "stop"]
MAX_ATTEMPTS = 3
MAX_KILLS = 2
"""A row that is alone on a lane when the lane dies, this many times, is poison."""


def decide(failed: Failed, alone: bool) -> Action:
    """What follows when a backend reports a failure.

    Args:
        failed: the failure; its `attempts` counts the tries of this row so far.
        alone: whether the row was the only one of its batch.
    Returns:
        "retry" it, "split" it from its batch mates and try again, "give up" on the row, or "stop" the run.
    """
    match failed.kind:
        case "oom":
            return "give up" if alone else "split"
        case "internal":
            # Unforeseen, so it may be the fault of a batch mate.
            if not alone:
                return "split"
            return "retry" if failed.attempts < 2 else "give up"
        case "transient":
            return "retry" if failed.attempts < MAX_ATTEMPTS else "give up"
        case "disk":
            return "stop"
        case _:  # input, refused, poison: no try will change it
            return "give up"
