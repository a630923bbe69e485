"""Engines between runs: kept where they are of use, taken by whoever needs the same, never in anybody's way."""

from __future__ import annotations

import gc
import os
import weakref
from concurrent.futures import Future

import pytest
from msgspec.structs import replace

from fastgen.config.hardware import Device, Gpu
from fastgen.workers import idle_pool, registry
from fastgen.workers.idle_pool import IdlePool

CPU = Device("cpu", "cpu", 2)
ENDPOINT = Device("openai", "endpoint", 1)


def gpu(number: int, name: str = "") -> Device:
    return Device(name or f"cuda:{number}", "cuda", 2, Gpu(number, f"GPU-{number}", "NVIDIA H100", 79.6, "9.0"))


class IdleWorker:
    """Does nothing and notes what is done to it. `settings` stand for the engine that it has."""

    def __init__(self, settings, device, slots):
        self.settings, self.device, self.slots = settings, device, slots
        self.name, self.model, self.reusable = device.name, "none", True
        self.stopped = 0
        self.forgotten = False

    def fits(self, settings, device, slots) -> bool:
        return (settings, device, slots) == (self.settings, self.device, self.slots)

    def stop(self, now: bool = False) -> None:
        self.stopped += 1

    def forget(self) -> None:
        self.forgotten = True

    def start(self) -> Future:
        raise AssertionError("nothing starts here")

    reconfigure = submit = cancel_pending = start


@pytest.fixture
def worker(monkeypatch):
    """worker(device, engine="a", slots=2) -> one that is made as every worker is."""
    monkeypatch.setitem(registry.PLACES, "nowhere", f"{__name__}:IdleWorker")
    return lambda device, engine="a", slots=2: registry.create("nowhere", engine, device, slots)


@pytest.fixture
def pool():
    pool = IdlePool()
    yield pool
    pool.workers = []


def test_the_engine_that_fits_is_taken_once(pool, worker):
    kept = worker(CPU)
    pool.put(kept)
    for engine, device, slots, place in (
        ("b", CPU, 2, "nowhere"),
        ("a", gpu(0), 2, "nowhere"),
        ("a", CPU, 3, "nowhere"),
        ("a", CPU, 2, "process"),
    ):
        assert idle_pool.take(place, engine, device, slots) is None
    assert idle_pool.take("nowhere", "a", CPU, 2) is kept and not kept.stopped
    assert idle_pool.take("nowhere", "a", CPU, 2) is None


def test_whoever_kept_it(worker):
    mine, yours = IdlePool(), IdlePool()
    kept = worker(CPU)
    yours.put(kept)
    assert idle_pool.take("nowhere", "a", CPU, 2) is kept and not mine.workers and not yours.workers


def test_what_is_of_no_more_use_is_ended_and_not_kept(pool, worker):
    broken = worker(CPU)
    broken.reusable = False
    pool.put(broken)
    assert broken.stopped == 1 and not pool.workers


def test_what_broke_while_it_was_idle_is_not_given_out(pool, worker):
    kept = worker(CPU)
    pool.put(kept)
    kept.reusable = False
    assert idle_pool.take("nowhere", "a", CPU, 2) is None and kept.stopped == 1


def test_a_device_has_one_idle_engine_over_all_sessions(worker):
    mine, yours = IdlePool(), IdlePool()
    first, second = worker(gpu(0)), worker(gpu(0), "b")
    mine.put(first)
    yours.put(second)
    assert first.stopped == 1 and not mine.workers and yours.workers == [second]
    yours.workers = []


def test_a_service_is_asked_by_each_session_by_itself(worker):
    mine, yours = IdlePool(), IdlePool()
    kept = [worker(ENDPOINT) for _ in range(3)]
    mine.put(kept[0])
    yours.put(kept[1])
    assert not kept[0].stopped
    yours.put(kept[2])
    assert kept[1].stopped == 1 and mine.workers == [kept[0]] and yours.workers == [kept[2]]
    mine.workers = yours.workers = []


@pytest.mark.parametrize(
    ("kept", "needed", "ends"),
    [
        (CPU, CPU, True),
        (Device("cpu:1", "cpu", 1), CPU, True),
        (gpu(0), gpu(0, "cuda:7"), True),
        (gpu(0), gpu(1), False),
        (replace(gpu(0), others=gpu(1).gpus), gpu(1), True),
        (gpu(1), replace(gpu(0), others=gpu(1).gpus), True),
        (replace(gpu(0), others=gpu(1).gpus), gpu(2), False),
        (gpu(0), CPU, False),
        (ENDPOINT, ENDPOINT, False),
        (CPU, ENDPOINT, False),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_room_is_made_on_the_device_alone(pool, worker, kept, needed, ends):
    idle = worker(kept)
    pool.put(idle)
    assert (idle_pool.make_room(needed) == [idle]) == ends == bool(idle.stopped) == (not pool.workers)


def test_a_closed_pool_keeps_nothing_more(pool, worker):
    kept, late = worker(CPU), worker(gpu(0))
    pool.put(kept)
    pool.close()
    pool.put(late)
    assert kept.stopped == late.stopped == 1 and not pool.workers
    pool.close()
    assert kept.stopped == 1


def test_a_pool_that_nobody_has_any_more_is_not_asked(worker):
    pool = IdlePool()
    pool.put(worker(CPU))
    seen = weakref.ref(pool)
    del pool
    gc.collect()
    assert seen() is None and idle_pool.take("nowhere", "a", CPU, 2) is None


def test_a_fork_has_none_of_them_and_ends_none(pool, worker):
    kept = worker(CPU)
    pool.put(kept)
    child = os.fork()
    if not child:
        right = not pool.workers and kept.forgotten and not kept.stopped
        os._exit(0 if right and idle_pool.take("nowhere", "a", CPU, 2) is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pool.workers == [kept] and not kept.forgotten
