"""When a run will be done, on a simulated clock: right within 20 % after the first tenth."""

from __future__ import annotations

import heapq
import random

import pytest

from fastgen.scheduler.eta import Estimate
from fastgen.types import ImageParams, Request, TextParams


def image(id: int, size: int = 1024, steps: int = 28, **more) -> Request:
    params = ImageParams(size, size, steps, 3.5, 0, more.pop("n", 1))
    return Request(f"r{id}", more.pop("task", "t2i"), ("a fox",), params, (size, size), **more)


def text(id: int) -> Request:
    return Request(f"r{id}", "caption", (), TextParams(100, 0.0, 0))


class Worker:
    """Takes batches one after the other, `at_once` at the same time. `rate`: units per second."""

    def __init__(self, rate, ready_s=0.0, batch=16, at_once=1, noise=0.0):
        self.rate, self.ready_s, self.batch, self.at_once, self.noise = rate, ready_s, batch, at_once, noise


def simulate(rows, workers, earlier=0, window=4096, look_every_s=1.0):
    """A run: [(time, share of the rows that are done, ETA), ...] at every look, and when it ended."""
    rng = random.Random(7)
    estimate, now = Estimate(earlier), 0.0
    for _ in range(earlier):
        estimate.skipped()
    left, held, read = list(rows)[::-1], {k: {} for k in range(len(workers))}, []
    events = [(worker.ready_s, number, "ready", []) for number, worker in enumerate(workers)]
    heapq.heapify(events)
    looks, next_look, done = [], 0.0, 0
    idle = set()

    def give(number):
        nonlocal left
        while left and len(read) < window:
            read.append(left.pop())
            estimate.read(read[-1].id, read[-1].work)
        if not read:
            idle.add(number)
            return
        worker = workers[number]
        read.sort(key=lambda row: row.work, reverse=True)  # as the scheduler does: one kind after the other
        size = read[0].work
        batch = [row for row in read[: worker.batch] if row.work == size]
        del read[: len(batch)]
        held[number][batch[0].id] = sum(row.work for row in batch)
        took = held[number][batch[0].id] / worker.rate * worker.at_once * rng.lognormvariate(0, worker.noise)
        heapq.heappush(events, (now + took, number, "answer", batch))

    while events:
        at, number, kind, batch = heapq.heappop(events)
        while next_look < at:
            names = {f"w{k}": sum(units.values()) for k, units in held.items()}
            looks.append((next_look, done / len(rows), estimate.eta_s(next_look, len(rows) + earlier, names)))
            next_look += look_every_s
        now = at
        if kind == "ready":
            estimate.ready(f"w{number}", now)
            for _ in range(workers[number].at_once):
                give(number)
            continue
        del held[number][batch[0].id]
        estimate.answered(f"w{number}", sum(row.work for row in batch), sum(row.samples for row in batch), now)
        for row in batch:
            estimate.settled(row.id)
        done += len(batch)
        give(number)
    return looks, now


UNITS = image(0).work
MIXED = random.Random(3)
CASES = {
    "one GPU": ([image(k) for k in range(640)], [Worker(UNITS, ready_s=40)]),
    "noise": ([image(k) for k in range(800)], [Worker(UNITS, 40, 8, noise=0.3) for _ in range(2)]),
    "GPUs that load for different times": (
        [image(k) for k in range(2000)],
        [Worker(UNITS, ready_s, 8) for ready_s in (20, 30, 45, 60)],
    ),
    "one GPU is half as fast": ([image(k) for k in range(1200)], [Worker(UNITS, 30, 8), Worker(UNITS / 2, 30, 8)]),
    "sizes and steps": (
        [image(k, MIXED.choice((512, 768, 1024)), MIXED.choice((4, 28))) for k in range(3000)],
        [Worker(UNITS, 30, 16, noise=0.1), Worker(UNITS, 35, 16, noise=0.1)],
    ),
    "larger than the window": ([image(k) for k in range(9000)], [Worker(8 * UNITS, 60, 32) for _ in range(4)]),
    "a service": ([text(k) for k in range(3000)], [Worker(8.0, 1, batch=1, at_once=32, noise=0.5)]),
    "a machine joins late": ([image(k) for k in range(3000)], [Worker(UNITS, 30), Worker(UNITS, 120)]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("earlier", [0, 5000], ids=["new", "resumed"])
def test_it_is_right_within_a_fifth_after_the_first_tenth(case, earlier):
    rows, workers = CASES[case]
    looks, end = simulate(rows, workers, earlier)
    joined = max(worker.ready_s for worker in workers)
    seen = [(now, eta) for now, share, eta in looks if share >= 0.1 and now >= joined and now < end]
    batch_s = max(worker.batch * UNITS / worker.rate for worker in workers) if case != "a service" else 10
    assert len(seen) > 20
    for now, eta in seen:
        left = end - now
        assert eta is not None and abs(eta - left) <= max(0.2 * left, batch_s), (now, eta, left)


def test_loading_does_not_count():
    quick, _ = simulate([image(k) for k in range(320)], [Worker(UNITS, ready_s=0)])
    slow, _ = simulate([image(k) for k in range(320)], [Worker(UNITS, ready_s=600)])
    assert [eta for now, _, eta in slow if now >= 620][:100] == pytest.approx(
        [eta for now, _, eta in quick if now >= 20][:100]
    )


def test_nothing_is_said_before_there_is_something_to_say():
    estimate = Estimate()
    assert estimate.eta_s(5.0, 100, {"w": 0.0}) is None
    estimate.read(image(1).id, image(1).work)
    estimate.ready("w", 3.0)
    assert estimate.eta_s(5.0, 100, {"w": UNITS}) is None
    estimate.answered("w", 0.0, 0, 6.0)
    assert estimate.eta_s(7.0, 100, {"w": UNITS}) is None, "a row that failed tells no rate"


def test_between_two_answers_it_counts_down():
    estimate = Estimate()
    for k in range(4):
        estimate.read(image(k).id, image(k).work)
    estimate.ready("w", 0.0)
    estimate.answered("w", UNITS, 1, 10.0)
    estimate.settled("r0")
    etas = [estimate.eta_s(now, 4, {"w": UNITS}) for now in (10.0, 15.0, 20.0, 40.0)]
    assert etas == pytest.approx([30.0, 25.0, 20.0, 20.0]), "a batch that takes longer stops it"


def test_a_service_that_gets_slower_is_seen():
    estimate = Estimate()
    rows = [text(k) for k in range(2000)]
    for row in rows:
        estimate.read(row.id, row.work)
    estimate.ready("w", 0.0)
    for k, row in enumerate(rows[:1000]):  # ten per second, then one per second
        estimate.answered("w", row.work, 1, min(k, 500) / 10 + max(0, k - 500))
        estimate.settled(row.id)
    assert estimate.eta_s(549.0, 2000, {"w": 0.0}) == pytest.approx(1000, rel=0.2)


def test_work_follows_what_a_row_asks_for():
    one = image(0, 512, 4).work
    assert (
        image(0, 1024, 4).work == 4 * one and image(0, 512, 8).work == 2 * one and image(0, 512, 4, n=3).work == 3 * one
    )
    assert image(0, 512, 4, task="edit", reference=(512, 512)).work == 2 * one
    assert text(0).work == 1
