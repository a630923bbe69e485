"""Requests -> batches. Pure: no files, no workers, no clock.

A window of requests is sorted into buckets (what may share a forward pass). A worker gets batches of one bucket until
that has no full batch left, and the workers are spread over the buckets, so that each one changes its size as seldom as
possible; what does not fill a batch waits for later rows.
Those with the most steps go first: a worker fills the places that become free, so the last to end should be short.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple

from fastgen.types import Batch, Bucket, Request

WINDOW = 4096
"""Requests held at once: enough to fill batches from mixed sizes, few enough not to matter in memory."""

LEFT_TO_ITS_WORKER = 0.5
"""Batches. For so few rows no other worker changes its size: all would end at most that much sooner."""
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
        self._buckets: dict[Bucket, list[_Waiting]] = {}
        self._samples: dict[Bucket, int] = {}
        self._sorted: dict[Bucket, int] = {}
        """How many of the first requests of a bucket are in order; those behind came later."""
        self._current: dict[str, Bucket] = {}
        """Worker -> the bucket of its last batch."""

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
            busy: other workers that have batches and will ask again. With `ended`, the last rows of a bucket that one
                of them has are left to it, if they are at most half a batch: then None is for this worker only.
        """
        if not self.requests:
            return None
        bucket = self._choose(ended or self.full, worker, busy if ended else ())
        if bucket is None:
            return None
        most = self.batch_for(bucket.width * bucket.height)
        if ended:  # few rows left: small batches for all workers are better than a full one for a single worker
            most = max(1, min(most, -(-self.samples // self.workers)))
        return self._take(bucket, most)

    def _choose(self, must: bool, worker: str, busy: Collection[str]) -> Bucket | None:
        """The worker's bucket while it can fill a batch, else the one that can fill most for each worker that has
        it."""

        def batches(bucket: Bucket) -> float:
            return self._samples[bucket] / self.batch_for(bucket.width * bucket.height)

        current = self._current.pop(worker, None)
        if current is None or current not in self._buckets or (batches(current) < 1 and not must):
            have = Counter(self._current.values())

            def share(bucket: Bucket) -> tuple[bool, float, Bucket]:
                return batches(bucket) >= 1, batches(bucket) / (1 + have[bucket]), bucket

            held = {bucket for name, bucket in self._current.items() if name in busy}
            free = [bucket for bucket in self._buckets if bucket not in held or batches(bucket) > LEFT_TO_ITS_WORKER]
            if not free:
                return None
            current = max(free, key=share)
        self._current[worker] = current
        return current if must or batches(current) >= 1 else None

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
