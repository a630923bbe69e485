"""When a run will be done. Pure: it is told what was read, answered and settled, and what time it is.

Work is counted in units that make rows comparable (`Request.work`). Each worker has a
rate of its own, from the moment when it was ready, so loading does not count, and a worker that joins late does. Of a
long run the second half decides, because services and machines get slower and faster.

A batch answers all at once. So between two answers a worker counts as having done what it does at its rate in that
time, but not more than it holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

SPAN_S = 60.0
"""At least so many of the last seconds decide, if there are so many."""
MOST_ENTRIES = 64
"""Per worker; answers that come close together are one entry."""


class WorkerRate:
    """What one worker has done since it was ready. Args: now: when that was, in seconds of any clock."""

    def __init__(self, now: float):
        self.since = self.last = now
        self._entries: deque[tuple[float, float, int]] = deque()
        """(time, units, images or texts), each entry with those since the one before."""

    def answered(self, units: float, made: int, now: float) -> None:
        apart = max(0.25, (now - self.since) / MOST_ENTRIES)
        if self._entries and now - self._entries[-1][0] < apart:
            _, before, count = self._entries.pop()
            units, made = units + before, made + count
        self._entries.append((now, units, made))
        self.last = now

    def rates(self) -> tuple[float, float]:
        """Units per second, and images or texts per second; 0 before its first answer."""
        span = max(SPAN_S, (self.last - self.since) / 2)
        start = max((time for time, *_ in self._entries if time <= self.last - span), default=self.since)
        took = self.last - start
        if took <= 0:
            return 0.0, 0.0
        since = [entry for entry in self._entries if entry[0] > start]
        return sum(units for _, units, _ in since) / took, sum(made for *_, made in since) / took


class Estimate:
    """Args: earlier: rows that the journal had when the run began."""

    def __init__(self, earlier: int = 0):
        self.workers: dict[str, WorkerRate] = {}
        self._earlier = earlier
        self._skipped = self._read = 0
        self._read_units = self._left = 0.0
        self._waiting: dict[str, float] = {}
        """id -> units of each row that was read and has no result."""

    def skipped(self, rows: int = 1) -> None:
        """Rows were read for which nothing is to be done."""
        self._skipped += rows

    def read(self, id: str, units: float) -> None:
        """A row was read that is to be done."""
        self._read += 1
        self._read_units += units
        self._left += units
        self._waiting[id] = units

    def settled(self, id: str) -> None:
        """A row has its result."""
        self._left -= self._waiting.pop(id, 0.0)

    def ready(self, worker: str, now: float) -> None:
        """A worker is ready; one that was restarted keeps what it has done."""
        if worker not in self.workers:
            self.workers[worker] = WorkerRate(now)

    def answered(self, worker: str, units: float, made: int, now: float) -> None:
        """A worker answered, and has done so much: in units, and images or texts."""
        if made and worker in self.workers:
            self.workers[worker].answered(units, made, now)

    def eta_s(self, now: float, expected: int, at_work: Mapping[str, float]) -> float | None:
        """Seconds until all rows have a result; None if that is not known yet.

        Args:
            expected: roughly how many rows there are in all; 0 if that is not known.
            at_work: worker -> units of the batches that it holds, for each worker that is not given up.
        """
        rates = {name: rate for name in at_work if name in self.workers and (rate := self.workers[name].rates()[0])}
        if not rates or not self._read:
            return None
        mean = sum(rates.values()) / len(rates)
        total = sum(rates.values()) + mean * sum(name in self.workers and name not in rates for name in at_work)
        made = 0.0
        for name, held in at_work.items():
            if name in self.workers:
                made += min(held, rates.get(name, mean) * max(0.0, now - self.workers[name].last))
        unread = max(0, expected - self._read - self._skipped)
        unread = max(0, unread - max(0, self._earlier - self._skipped))
        left = self._left + unread * self._read_units / self._read
        return max(0.0, (left - made) / total)
