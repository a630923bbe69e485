"""The gate on a clock of its own: it grows, it pauses for all, one goes ahead, and requests a minute are kept to."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from fastgen.backends.remote.gate import DOWN_AFTER, LONGEST_PAUSE_S, SHRINK, Gate


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def wait(gate: Gate) -> float | None:
    """0: a request would be let through now; else seconds, or None for "until something changes"."""
    with gate._changed:
        return gate._wait()


def filled(gate: Gate) -> list:
    found = []
    while wait(gate) == 0:
        found.append(gate.enter())
    return found


def test_it_doubles_a_round_trip_up_to_the_most():
    gate, sizes = Gate(20, first=2, clock=Clock()), []
    for _ in range(5):
        tickets = filled(gate)
        sizes.append(len(tickets))
        for ticket in tickets:
            gate.leave(ticket, "answered")
    assert sizes == [2, 4, 8, 16, 20] and gate.inflight == 0 and gate.peak == 20


def test_one_complaint_pauses_all_and_one_goes_ahead():
    clock = Clock()
    gate = Gate(10, clock=clock)
    tickets = filled(gate)
    assert len(tickets) == 10
    gate.leave(tickets.pop(), "slow down", 7.0)
    assert wait(gate) == 7.0 and gate.limit == 7.0
    for ticket in tickets:  # those that were on their way complain of the same
        gate.leave(ticket, "slow down", 7.0)
    assert gate.limit == 7.0 and wait(gate) == 7.0
    clock.now += 7
    probe = gate.enter()
    assert wait(gate) is None, "one is tried alone"
    gate.leave(probe, "answered")
    assert len(filled(gate)) == 7, "then the others follow"


def test_pauses_grow_where_the_service_does_not_say():
    clock = Clock()
    gate, pauses = Gate(4, clock=clock), []
    for _ in range(7):
        ticket = gate.enter()
        gate.leave(ticket, "slow down")
        pauses.append(wait(gate))
        clock.now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert gate.limit == pytest.approx(4 * SHRINK), "one spell, one shrink"
    gate.leave(gate.enter(), "neither")
    gate.leave(gate.enter(), "slow down")
    assert wait(gate) == 1.0, "an answer of any kind ends the row"


def test_growth_is_slow_after_a_complaint():
    clock = Clock()
    gate = Gate(100, first=10, clock=clock)
    gate.leave(gate.enter(), "slow down", 1)
    clock.now += 1
    gate.leave(gate.enter(), "answered")
    before = gate.limit
    tickets = filled(gate)
    for ticket in tickets:
        gate.leave(ticket, "answered")
    assert before < gate.limit <= before + 1.2


def test_a_few_without_answer_are_an_accident():
    gate = Gate(8, clock=Clock())
    for _ in range(DOWN_AFTER - 1):
        gate.leave(gate.enter(), "down")
    gate.leave(gate.enter(), "answered")
    assert wait(gate) == 0
    for _ in range(DOWN_AFTER):
        gate.leave(gate.enter(), "down")
    assert wait(gate) == 1.0


def test_requests_a_minute():
    clock = Clock()
    gate, sent = Gate(50, rpm=60, clock=clock), []
    while clock.now < 110:
        if (pause := wait(gate)) == 0:
            gate.leave(gate.enter(), "answered")
            sent.append(clock.now)
        else:
            clock.now += pause
    assert len(sent) == 10 and all(b - a >= 0.999 for a, b in itertools.pairwise(sent))


def test_threads_wait_and_wake():
    gate = Gate(3)
    most, now, lock = 0, 0, threading.Lock()

    def work():
        nonlocal most, now
        for _ in range(10):
            ticket = gate.enter()
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.001)
            with lock:
                now -= 1
            gate.leave(ticket, "answered")

    threads = [threading.Thread(target=work) for _ in range(12)]
    [thread.start() for thread in threads]
    [thread.join(10) for thread in threads]
    assert not any(thread.is_alive() for thread in threads) and most == 3 and gate.inflight == 0
