"""What becomes of the batches of a worker that died or hangs; the workers are puppets of the test."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Barrier

import pytest

from fastgen.scheduler import failure_policy
from fastgen.scheduler.routing import Group
from fastgen.scheduler.watchdog import BEAT_END_S, BEAT_WARN_S
from fastgen.scheduler.worker_pool import WorkerPool
from fastgen.types import Batch, Bucket, Done, ImageParams, Request
from fastgen.workers import registry
from fastgen.workers.base import MachineRefused, WorkerDied

PARAMS = ImageParams(64, 64, 4, 0.0, 0, 1)


def batch(*ids: str) -> Batch:
    requests = tuple(Request(id, "t2i", ("a",), PARAMS, (64, 64)) for id in ids)
    return Batch(Bucket.of(requests[0]), requests)


def done(batch: Batch) -> list[Done]:
    return [Done(request.id, "fake", "fake", (), PARAMS, 0.0) for request in batch.requests]


class Puppet:
    model, reusable = "a model", False
    stopping = Barrier(1)

    def __init__(self, settings, device, slots):
        self.name, self.device, self.slots = device.name, device, slots
        self.beats, self.starts, self.killed = 0, 0, []
        self.futures: list[Future] = []

    def start(self):
        self.starts += 1
        future = Future()
        future.set_result({})
        return future

    def submit(self, batch):
        self.futures.append(Future())
        return self.futures[-1]

    def kill(self, reason):
        self.killed.append(reason)
        self.die(reason)

    def die(self, reason, **how):
        for future in self.futures:
            if not future.done():
                future.set_exception(WorkerDied(reason, **how))

    def cancel_pending(self): ...

    def stop(self, now=False):
        self.stopping.wait(10)

    def forget(self): ...


@pytest.fixture
def pool(settings, monkeypatch):
    """A pool with two ready puppets."""
    monkeypatch.setitem(registry.PLACES, "puppets", f"{__name__}:Puppet")
    pool = WorkerPool(SimpleQueue(), lambda event, **facts: pool.said.append((event, facts)), place="puppets")
    pool.said = []
    pool.start(Group(settings("t2i", gpus="cpu:2"), 0))
    for _ in pool.states:
        state, _, future = pool.inbox.get()
        pool.handle_start(state, future)
    pool.said.clear()
    return pool


def test_a_machine_that_may_not_take_part_is_left_out_alone(pool):
    def refused() -> Future:
        future: Future = Future()
        future.set_exception(MachineRefused("the machine far cannot take part: msgspec is 1 there and 2 here"))
        return future

    late, other = pool.states
    late.was_ready = False
    pool.handle_start(late, refused())
    assert pool.states == [other]
    [(event, facts)] = pool.said
    assert event == "warning" and facts["message"].startswith(f"{late.worker.name} is not used, and the run goes on")
    assert "msgspec is 1 there" in facts["message"]
    other.was_ready = False
    with pytest.raises(MachineRefused):
        pool.handle_start(other, refused())


def ids(batches: list[Batch]) -> list[list[str]]:
    return [[request.id for request in batch.requests] for batch in batches]


def test_death_is_sorted_by_what_each_batch_had_to_do_with_it(pool):
    state = pool.states[0]
    for one in (batch("answered"), batch("a", "b", "c"), batch("d"), batch("late")):
        pool.submit(state, one)
    answered, paying, unpaid, late = state.worker.futures
    answered.set_result(done(batch("answered")))
    paying.set_exception(WorkerDied("gone"))
    unpaid.set_exception(WorkerDied("gone", may_cost=False))
    late.set_exception(WorkerDied("gone", idle=True))
    lost = pool.handle_death(state, paying.exception(), restart=True)
    assert ids(lost.suspects) == [["a"], ["b", "c"], ["d"]] and ids(lost.innocent) == [["late"]]
    assert [request.id for request in lost.perhaps_paid] == ["a", "b", "c"]
    assert [request.id for request in lost.unpaid] == ["d", "late"]
    assert ids(state.batches) == [["answered"]], "its message is still to come"
    assert state.worker.starts == 2 and [event for event, _ in pool.said] == ["lane_died"]


def test_nobody_is_blamed_and_nothing_started_when_the_run_ends(pool):
    state = pool.states[0]
    for _ in range(2 * failure_policy.MAX_KILLS):
        pool.submit(state, batch("a"))
        pool.kill_busy("it still worked")
        lost = pool.handle_death(state, state.worker.futures[-1].exception(), restart=False)
        assert not lost.poisoned and [request.id for request in lost.perhaps_paid] == ["a"]
        state.ready = True
    assert state.worker.starts == 1 and not pool.said and not pool.states[1].worker.killed


def test_a_silent_worker_is_named_then_ended_and_its_rows_run_alone(pool):
    silent, sound = pool.states
    for state in pool.states:
        pool.submit(state, batch("first"))
        state.worker.futures[0].set_result(done(batch("first")))
    while not pool.inbox.empty():
        state, number, _ = pool.inbox.get()
        pool.finish(state, number)
    for state in pool.states:
        pool.submit(state, batch("a", "b"))
    now = pool._looked_at
    for second in range(int(BEAT_END_S) + 2):
        sound.worker.beats += 1
        pool.watch(now + second)
        sound.watch.answered(batch("a", "b"), 1.0)
    warned = [facts["message"] for event, facts in pool.said if event == "warning"]
    assert len(warned) == 2 and f"{silent.worker.name}: silent for {BEAT_WARN_S:.0f} s" in warned[0]
    [reason] = silent.worker.killed
    assert "so it was ended" in reason and not sound.worker.killed
    state, number, future = pool.inbox.get()
    lost = pool.handle_death(state, future.exception(), restart=True)
    assert state is silent and ids(lost.suspects) == [["a"], ["b"]] and silent.worker.starts == 2
    assert [facts["reason"] for event, facts in pool.said if event == "lane_died"] == [reason]


def test_what_a_backend_has_to_say_is_a_warning_once(pool):
    first, _ = pool.states
    first.worker.warnings = deque(["its server was started again"])
    for second in range(2):
        pool.watch(pool._looked_at + second)
    assert pool.said == [("warning", {"message": f"{first.worker.name}: its server was started again"})]


def test_workers_are_stopped_side_by_side(pool, monkeypatch):
    monkeypatch.setattr(Puppet, "stopping", Barrier(2))  # broken, and so an error, where one waits for the other
    pool.release()
    assert not Puppet.stopping.broken and not pool.states


def test_a_worker_that_dies_without_a_row_is_no_rows_fault(pool):
    state, _ = pool.states
    pool.submit(state, batch("late"))
    state.worker.die("gone", idle=True)
    pool.handle_death(state, state.worker.futures[-1].exception(), restart=True)
    verdicts = []
    for _ in range(3):
        pool.submit(state, batch("a"))
        state.worker.die("gone")
        lost = pool.handle_death(state, state.worker.futures[-1].exception(), restart=True)
        verdicts.append([failed.message for failed in lost.poisoned])
    assert verdicts == [[], [], ["it ended its engine process 3 times while it ran there alone: gone"]]
