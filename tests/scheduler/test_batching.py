"""Every request goes out once, beside its like, in batches of the right size, one size after another."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgen.scheduler.batching import Window, halves
from fastgen.types import Batch, Bucket, ImageParams, Request

SIZES = [(64, 64), (96, 64), (128, 128)]
BATCH = {64 * 64: 8, 96 * 64: 5, 128 * 128: 1}


def request(number: int, size=(64, 64), n: int = 1, prompts=("a",), task: str = "t2i", steps: int = 4) -> Request:
    return Request(str(number), task, prompts, ImageParams(*size, steps, 0.0, 0, n), size)


specifications = st.tuples(
    st.sampled_from(SIZES),
    st.integers(1, 11),
    st.sampled_from([("a",), ("b",), ("a", "b")]),
    st.sampled_from(["t2i", "edit"]),
    st.integers(1, 3),
)


@given(
    actions=st.lists(specifications | st.just("draw"), max_size=60), workers=st.integers(1, 4), size=st.integers(1, 20)
)
def test_nothing_is_lost_or_doubled(actions, workers, size):
    window = Window(BATCH.__getitem__, workers, size)
    added, drawn = [], []

    def take(ended):
        waiting = len(window)
        full = window.full
        samples = Counter()
        for r in added:
            if r not in drawn:
                samples[Bucket.of(r)] += r.samples
        filled = {b for b, count in samples.items() if count >= BATCH[b.width * b.height]}
        batch = window.draw(ended)
        if batch is None:
            assert not waiting or not (ended or full or filled), "it waits although there is nothing to wait for"
            return False
        assert ended or full or batch.bucket in filled, "it does not wait for a full batch"
        most = BATCH[batch.bucket.width * batch.bucket.height]
        assert batch.requests and len(window) == waiting - len(batch.requests)
        assert batch.samples <= most or len(batch.requests) == 1
        assert all(Bucket.of(r) == batch.bucket for r in batch.requests)
        drawn.extend(batch.requests)
        return True

    for number, action in enumerate(actions):
        if action == "draw":
            take(ended=False)
        else:
            added.append(request(number, *action))
            window.add(added[-1])
    while take(ended=True):
        pass
    assert Counter(r.id for r in drawn) == Counter(r.id for r in added) and len(window) == 0


def test_it_waits_for_a_full_batch():
    window = Window(lambda pixels: 4)
    for i in range(3):
        window.add(request(i))
        assert window.draw(ended=False) is None
    window.add(request(3))
    assert window.draw(ended=False).samples == 4
    window.add(request(4))
    assert window.draw(ended=True).samples == 1


def test_a_full_window_gives_what_it_has():
    window = Window(lambda pixels: 4, size=2)
    window.add(request(0, (64, 64)))
    window.add(request(1, (96, 64)))
    assert window.full and len(window.draw(ended=False).requests) == 1


def test_one_size_after_another():
    window = Window(lambda pixels: 2)
    for i in range(30):
        window.add(request(i, SIZES[i % 3]))
    buckets = [batch.bucket for batch in iter(lambda: window.draw(ended=True), None)]
    assert len(buckets) == 15 and len(list(groupby(buckets))) == 3


def test_equal_prompts_and_steps_go_together():
    window = Window(lambda pixels: 4)
    for i in range(16):
        window.add(request(i, prompts=("abcd"[i % 4],), steps=4 + i % 2))
    for batch in iter(lambda: window.draw(ended=True), None):
        assert len({(r.prompts, r.params.steps) for r in batch.requests}) == 1


def test_the_longest_go_first():
    """Whoever joins last should not be left alone with many steps."""
    window = Window(lambda pixels: 4)
    for i in range(16):
        window.add(request(i, steps=4 + i * 7 % 16))
    drawn = [r.params.steps for batch in iter(lambda: window.draw(ended=True), None) for r in batch.requests]
    assert drawn == list(range(19, 3, -1))


def test_the_last_rows_of_a_size_are_left_to_the_worker_that_has_it():
    """If another would gain half a batch at most, and only while that worker has something to do, so that it will ask
    again."""

    def window_with(left: int) -> Window:
        window = Window(lambda pixels: 8, workers=2)
        for i in range(16 + left):
            window.add(request(i, (64, 64)))
        for i in range(16):
            window.add(request(100 + i, (96, 64)))
        for _ in range(2):
            assert {window.draw(False, name).bucket.width for name in "ab"} == {64, 96}
        return window

    name = "a" if window_with(4)._current["a"].width == 64 else "b"
    other = "b" if name == "a" else "a"
    assert window_with(4).draw(True, other, (name,)) is None
    assert window_with(4).draw(True, name, (other,)).samples == 2, "it is spread, as ever"
    assert window_with(4).draw(True, other, ()).bucket.width == 64, "that worker is gone"
    assert window_with(8).draw(True, other, (name,)) is None, "it would gain four samples"
    assert window_with(9).draw(True, other, (name,)).bucket.width == 64, "it would gain more than half a batch"
    assert window_with(4).draw(True, "c", (other,)).bucket.width == 64, "who is busy has another size"


@pytest.mark.parametrize(
    ("workers", "rows"),
    [
        (4, [400, 30, 50, 110, 20]),
        (16, [40 + 37 * i % 161 for i in range(40)]),
        (8, [40 + 37 * i % 161 for i in range(24)]),
        (16, [90 + 37 * i % 161 for i in range(16)]),
    ],
)
def test_workers_that_end_together_share_as_few_sizes_as_they_can(workers, rows):
    """The rows are a line, size after size, that is cut into a piece for each worker: one change of size where a size
    ends, so one less than there are sizes. All workers take a batch in each round."""
    window, names = Window(lambda pixels: 2, workers, sum(rows)), [f"worker {i}" for i in range(workers)]
    for size, count in enumerate(rows):
        for number in range(count):
            window.add(request(number, (64 + 16 * size, 64)))
    had: dict[str, list[Bucket]] = {name: [] for name in names}
    rounds = 0
    while len(window):
        rounds += 1
        for name in names:
            if (batch := window.draw(True, name, [other for other in names if other != name])) is not None:
                had[name].append(batch.bucket)
    switches = sum(len(list(groupby(buckets))) - 1 for buckets in had.values() if buckets)
    assert switches <= 1.2 * (len(rows) - 1)
    assert rounds <= sum(rows) / 2 / workers + 3


def test_the_last_rows_are_spread_over_the_workers():
    window = Window(lambda pixels: 8, workers=4)
    for i in range(4):
        window.add(request(i))
    assert [len(batch.requests) for batch in iter(lambda: window.draw(ended=True), None)] == [1, 1, 1, 1]


def test_a_row_larger_than_a_batch_goes_alone():
    window = Window(lambda pixels: 4)
    for i in range(3):
        window.add(request(i, n=10 if i == 1 else 1))
    batches = list(iter(lambda: window.draw(ended=True), None))
    assert sorted(r.id for batch in batches for r in batch.requests) == ["0", "1", "2"]
    assert all(batch.samples <= 4 or len(batch.requests) == 1 for batch in batches)


@given(st.integers(1, 9))
def test_halves(count):
    requests = tuple(request(i) for i in range(count))
    parts = halves(Batch(Bucket.of(requests[0]), requests))
    assert tuple(r for part in parts for r in part.requests) == requests
    assert len(parts) == min(2, count) and all(part.requests for part in parts)
    assert max(len(p.requests) for p in parts) - min(len(p.requests) for p in parts) <= 1


def test_rows_that_come_late_find_their_place_in_the_order():
    """As if all that waits were sorted anew for each batch."""

    def one(number: int) -> Request:
        params = ImageParams(64, 64, number * 7 % 5 + 1, 0.0, 0, 1)
        return Request(str(number), "t2i", (f"p{number * 11 % 13}",), params, (64, 64))

    window, waiting = Window(lambda pixels: 4), []
    for number in range(400):
        window.add(one(number))
        waiting.append(one(number))
        if number >= 200 and number % 3 == 0:
            waiting.sort(key=lambda request: (request.params.steps, request.prompts))
            drawn = window.draw(ended=False)
            assert [r.id for r in drawn.requests] == [waiting.pop().id for _ in drawn.requests]


def test_where_nothing_is_computed_all_sizes_share_a_batch_in_their_order():
    window = Window(lambda pixels: 3, any_shape=True)
    sizes = [(64, 64), (128, 64), (64, 128), (256, 256)]
    rows = [request(number, size=size, prompts=(f"p{9 - number}",)) for number, size in enumerate(sizes)]
    for row in rows:
        window.add(row)
    assert window.draw(ended=False).requests == tuple(rows[:3])
    assert window.draw(ended=False) is None and window.draw(ended=True).requests == (rows[3],)
    assert len(window) == window.samples == 0
