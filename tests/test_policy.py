"""What follows from each kind of failure."""

from __future__ import annotations

from typing import get_args

import pytest

from fastgen.policy import MAX_ATTEMPTS, decide
from fastgen.types import Failed, Kind

# (kind, attempts, alone) -> action
TABLE = {
    ("oom", 1, False): "split", ("oom", 1, True): "give up",
    ("internal", 1, False): "split", ("internal", 1, True): "retry", ("internal", 2, True): "give up",
    ("transient", 1, False): "retry", ("transient", MAX_ATTEMPTS - 1, True): "retry",
    ("transient", MAX_ATTEMPTS, True): "give up", ("transient", MAX_ATTEMPTS, False): "give up",
    ("disk", 1, True): "stop", ("disk", 1, False): "stop",
    ("input", 1, True): "give up", ("input", 1, False): "give up",
    ("refused", 1, True): "give up", ("refused", 1, False): "give up",
    ("poison", 2, True): "give up",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "attempts", "alone"), TABLE, ids=str)
def test_decisions(kind, attempts, alone):
    assert decide(Failed("a", kind, "why", attempts=attempts), alone) == TABLE[kind, attempts, alone]


def test_every_kind_is_decided():
    assert {kind for kind, _, _ in TABLE} == set(get_args(Kind))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_nothing_is_tried_for_ever(kind):
    assert decide(Failed("a", kind, "why", attempts=10), alone=True) in ("give up", "stop")
