"""When a backend of the route gets no more rows, and what it hands back."""

from __future__ import annotations

import pytest

from fastgen.scheduler.failure_policy import MAX_USELESS, MAX_USELESS_AT_FIRST, OUTAGE_S, OUTAGE_WITH_FALLBACK_S
from fastgen.scheduler.routing import Group
from fastgen.types import Batch, Bucket, Done, Failed, ImageParams, Request

PARAMS = ImageParams(64, 64, 4, 0.0, 0, 1)
OK = Done("a", "fake", "fake", (), PARAMS, 0.0)


@pytest.fixture
def group(settings):
    return Group(settings("t2i"), 0)


def failed(kind: str) -> Failed:
    return Failed("a", kind, f"because of {kind}")


@pytest.mark.parametrize("kind", ["quota", "unauthorized", "gone"])
def test_one_that_never_worked_is_closed_soon(group, kind):
    for _ in range(MAX_USELESS_AT_FIRST - 1):
        assert not group.learn(failed(kind), 0.0, last=True)
    assert group.learn(failed(kind), 0.0, last=True) == f"because of {kind}"


def test_one_that_worked_is_given_some_more(group):
    group.learn(OK, 0.0, last=True)
    for _ in range(MAX_USELESS - 1):
        assert not group.learn(failed("quota"), 0.0, last=True)
    group.learn(OK, 0.0, last=True)
    for _ in range(MAX_USELESS - 1):
        assert not group.learn(failed("quota"), 0.0, last=True)
    assert group.learn(failed("quota"), 0.0, last=True)


@pytest.mark.parametrize("answer", ["refused", "rate_limited"])
@pytest.mark.parametrize(("last", "patience"), [(True, OUTAGE_S), (False, OUTAGE_WITH_FALLBACK_S)])
def test_an_outage_is_waited_for(group, last, patience, answer):
    assert not group.learn(failed("unavailable"), 100.0, last)
    assert not group.learn(failed("unavailable"), 99.0 + patience, last)
    assert not group.learn(failed(answer), 99.0 + patience, last), "it answers: not an outage"
    assert not group.learn(failed("unavailable"), 101.0 + patience, last)
    assert "no answer for" in group.learn(failed("unavailable"), 101.0 + 2 * patience, last)


@pytest.mark.parametrize("kind", ["input", "oom", "poison", "transient", "internal", "rate_limited", "malformed"])
def test_no_other_failure_closes_it(group, kind):
    assert not any(group.learn(failed(kind), 1000.0 * i, last=False) for i in range(100))


def test_all_that_waits_is_handed_back(group):
    requests = [Request(str(i), "t2i", ("a",), PARAMS, (64, 64)) for i in range(9)]
    for request in requests[:5]:
        group.window.add(request)
    bucket = Bucket.of(requests[0])
    group.queue.append(Batch(bucket, tuple(requests[5:7])))
    group.suspects.append(Batch(bucket, tuple(requests[7:])))
    assert len(group) == 7
    assert sorted(r.id for r in group.take_back()) == [str(i) for i in range(9)] and not len(group)
