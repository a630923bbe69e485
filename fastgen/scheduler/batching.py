"""Requests -> batches. Pure: no files, no workers, no clock.

A window of requests is sorted into buckets (what may share a forward pass). A worker gets batches of one bucket until
that has no full batch left, and the workers are spread over the buckets, so that each one changes its size as seldom as
possible; what does not fill a batch waits for later rows. Once no more rows will come, it is settled who does what.
Those with the most steps go first: a worker fills the places that become free, so the last to end should be short.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple

from fastgen.types import Batch, Bucket, Request

WINDOW = 4096
"""Requests held at once: enough to fill batches from mixed sizes, few enough not to matter in memory."""

LEFT_TO_ITS_WORKER = 0.5
"""Batches. For so few rows no other worker changes its size."""
LATE = 0.005
"""Part of all rows of a worker. It may end so much later than the others; none of them changes its size for less."""
LATE_BY_ONE = 0.02
"""The same if it ends later by one sample, since the last rows of a size cannot be divided further."""
LEAVE = 3.0
"""Batches for each worker. A size that has less than one for each that shares it loses one of them to a size with so
many."""
FEW = 16
"""Putting one request in its place compares it with about this many others."""


class _Waiting(NamedTuple):
    """A request in its place. Tuples are compared without calling any function of ours."""

    steps: int
    prompts: tuple[str, ...]
    number: int
    """Of equal ones, the first comes first."""
    samples: int
    request: Request


class Window:
    """The requests that wait for a batch.

    Args:
        batch_for: pixels of one sample -> samples that an engine is given together.
        workers: batches that are computed at the same time, in all engines together.
        any_shape: whether requests share a batch whatever their sizes are, because nothing is computed here.
    """

    def __init__(self, batch_for: Callable[[int], int], workers: int = 1, size: int = WINDOW, any_shape: bool = False):
        self.batch_for = batch_for
        self.workers = workers
        self.size = size
        self._any_shape = any_shape
        self.requests = 0
        self._added = 0
        self._added_samples = 0
        self._buckets: dict[Bucket, list[_Waiting]] = {}
        self._samples: dict[Bucket, int] = {}
        self._sorted: dict[Bucket, int] = {}
        """How many of the first requests of a bucket are in order; those behind came later."""
        self._current: dict[str, Bucket] = {}
        """Worker -> the bucket of its last batch."""
        self._shares: dict[str, float] = {}
        """Worker -> samples of that bucket that are its to do, from when no more rows will come."""

    def __len__(self) -> int:
        return self.requests

    @property
    def batch(self) -> int:
        """Samples of the largest full batch."""
        return max((self.batch_for(bucket.width * bucket.height) for bucket in self._buckets), default=1)

    @property
    def samples(self) -> int:
        return sum(self._samples.values())

    @property
    def full(self) -> bool:
        return self.requests >= self.size

    def add(self, request: Request) -> None:
        bucket = Bucket.of(request)
        if self._any_shape:
            bucket = Bucket(bucket.task, 0, 0, (0, 0), bucket.turns)
        samples = request.samples
        self._added += 1
        self._added_samples += samples
        steps = getattr(request.params, "steps", 0)
        waiting = _Waiting(steps, request.prompts, self._added, samples, request)
        self._buckets.setdefault(bucket, []).append(waiting)
        self._samples[bucket] = self._samples.get(bucket, 0) + samples
        self.requests += 1

    def draw(self, ended: bool, worker: str = "", busy: Collection[str] = ()) -> Batch | None:
        """The next batch, or None while it is better to wait for more rows: for this worker, and so for any.

        Args:
            worker: the name of the one that gets it.
            ended: no more rows will come, so what is left is sent, spread over the workers.
            busy: other workers that have batches and will ask again. With `ended`, they keep what they can do of
                their buckets until all end, and the last rows are left to them if another worker would gain little
                (`LEFT_TO_ITS_WORKER`, `LATE`): then None is for this worker only.
        """
        if not self.requests:
            return None
        bucket = self._choose(ended, worker, busy)
        if bucket is None:
            return None
        most = self.batch_for(bucket.width * bucket.height)
        if ended:  # few rows left: small batches for all workers are better than a full one for a single worker
            part = min(most, self.samples / self.workers, self._part(bucket, worker, busy))
            most = max(1, math.ceil(part))
        batch = self._take(bucket, most)
        if ended:
            self._shares[worker] = max(0.0, self._shares[worker] - batch.samples)
        return batch

    def _choose(self, ended: bool, worker: str, busy: Collection[str]) -> Bucket | None:
        """The worker's bucket while it can fill a batch and the worker has a share of it, else another one."""
        must = ended or self.full
        current, share = self._current.pop(worker, None), self._shares.pop(worker, None)
        if current not in self._buckets or not (must or self._batches(current) >= 1) or (ended and share == 0):
            current = None
        if ended:
            if current is None or share is None:
                current, share = self._plan(current, set(busy))
            if current is None:
                return None
            self._shares[worker] = math.inf if share is None else share
        elif current is None or self._should_leave(current):
            current = self._widest()
        self._current[worker] = current
        return current if must or self._batches(current) >= 1 else None

    def _batches(self, bucket: Bucket) -> float:
        return self._samples[bucket] / self.batch_for(bucket.width * bucket.height)

    def _widest(self) -> Bucket:
        """The bucket that can fill most for each worker that has it."""
        have = Counter(self._current.values())

        def widest(bucket: Bucket) -> tuple[bool, float, Bucket]:
            batches = self._batches(bucket)
            return batches >= 1, batches / (1 + have[bucket]), bucket

        return max(self._buckets, key=widest)

    def _should_leave(self, bucket: Bucket) -> bool:
        """Whether a worker that shares a bucket should have another one before it is empty. If all stayed until then,
        all would leave it together."""
        batches = self._batches(bucket)
        if len(self._buckets) == 1 or batches >= self.workers or not self.full:
            return False
        have = Counter(self._current.values())
        if not have[bucket] or batches >= 1 + have[bucket]:
            return False
        return any(self._batches(b) / (1 + have[b]) > LEAVE for b in self._buckets if b != bucket)

    def _part(self, bucket: Bucket, worker: str, busy: Collection[str]) -> float:
        """Samples of a bucket that are a worker's to do: its share, or near the end, what each gets of those that have
        it, since none should then change its size for what another one has."""
        share = self._shares[worker]
        if self.samples > self.workers * self.batch_for(bucket.width * bucket.height):
            return share
        having = 1 + sum(n != worker and self._current.get(n) == bucket and self._shares.get(n) != 0 for n in busy)
        return min(share, self._samples[bucket] / having)

    def _plan(self, current: Bucket | None, busy: set[str]) -> tuple[Bucket | None, float]:
        """A bucket for a worker, and how many samples of it, so that all workers end together and no more of them share
        a bucket than must: a line of all rows, bucket after bucket, is cut into a piece for each worker.

        Args:
            current: the bucket that the worker has; it stays there if the others leave some of it over.
        Returns:
            None, 0 if it is better to leave the last rows to the others.
        """
        each = self.samples / self.workers
        kept: dict[Bucket, float] = {}
        late: dict[Bucket, float] = {}
        for name, bucket in self._current.items():
            if name in busy:
                kept[bucket] = kept.get(bucket, 0.0) + min(self._shares.get(name, math.inf), each)
                late[bucket] = late.get(bucket, 0.0) + self._may_be_late

        def left_over(bucket: Bucket) -> float:
            return self._samples[bucket] - kept.get(bucket, 0.0)

        if current is None or left_over(current) <= 0:
            few = LEFT_TO_ITS_WORKER
            free = [b for b in self._buckets if b not in kept or self._batches(b) > few]
            current = max(free, key=lambda b: (self._batches(b) >= 1, left_over(b), b), default=None)
            if current is None:
                return None, 0.0
            batch = self.batch_for(current.width * current.height)
            if current in kept and left_over(current) <= max(late[current], few * batch if each <= batch else 0.0):
                return None, 0.0
        left, batch = left_over(current), self.batch_for(current.width * current.height)
        return current, max(batch, left) if current in kept and left < each else math.inf

    @property
    def _may_be_late(self) -> float:
        """Samples by which a worker may end later than the others."""
        each = self._added_samples / self.workers
        return max(LATE * each, float(LATE_BY_ONE * each >= 1))

    def _take(self, bucket: Bucket, most: int) -> Batch:
        """Requests with up to `most` samples together, at least one request; equal steps and prompts are side by
        side."""
        waiting = self._buckets[bucket]
        if self._any_shape:  # as they came; taken out together, since there may be thousands
            count, samples = 1, waiting[0].samples
            while count < len(waiting) and samples + waiting[count].samples <= most:
                samples += waiting[count].samples
                count += 1
            taken, waiting[:count] = waiting[:count], []
            return self._gone(bucket, taken, samples)
        if most == 1:  # batches of one need no sorting: an endpoint's rows keep their order
            taken = [waiting.pop(0)]
            self._sorted[bucket] = max(0, self._sorted.get(bucket, 0) - 1)
        else:
            self._sort(bucket)
            taken = [waiting.pop()]  # from the end, where removing from a list is cheap
        samples = taken[0].samples
        while waiting and samples + waiting[-1].samples <= most:
            taken.append(waiting.pop())
            samples += taken[-1].samples
        self._sorted[bucket] = min(self._sorted[bucket], len(waiting))
        return self._gone(bucket, taken, samples)

    def _gone(self, bucket: Bucket, taken: list[_Waiting], samples: int) -> Batch:
        """The batch with what was taken out of a bucket."""
        self.requests -= len(taken)
        self._samples[bucket] -= samples
        if not self._buckets[bucket]:
            del self._buckets[bucket], self._samples[bucket]
            self._sorted.pop(bucket, None)
        return Batch(bucket, tuple(one.request for one in taken))

    def _sort(self, bucket: Bucket) -> None:
        """Put the requests in order, equal ones as they came. Sorting all of them for each batch took most of the main
        process's time."""
        waiting, known = self._buckets[bucket], self._sorted.get(bucket, 0)
        late = waiting[known:]
        if len(late) > known // FEW:
            waiting.sort()
        else:
            del waiting[known:]
            for one in late:
                insort(waiting, one)
        self._sorted[bucket] = len(waiting)


def halves(batch: Batch) -> list[Batch]:
    """The batch in two halves, or unchanged if it has one request."""
    middle = len(batch.requests) // 2
    parts = [batch.requests[:middle], batch.requests[middle:]]
    return [Batch(batch.bucket, part) for part in parts if part]
