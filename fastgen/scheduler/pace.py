"""Which workers should get one of the last batches. Pure: it is told what each one holds and how fast it is.

Towards the end a slow worker would still be busy when all others are done. So it gets no more batches from when the
others would finish everything that is left sooner than it a single one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

UNEVEN = 1.5
"""Workers whose paces differ by less than this factor count as equal."""


@dataclass
class Pace:
    """How fast one worker is, and what it holds."""

    samples: int = 0
    """In flight."""
    done: int = 0
    """Samples that it finished."""
    busy_s: float = 0.0
    """Seconds in which it had work."""
    answered_s: float = 0.0
    """When it answered last, by the clock of the caller."""

    @property
    def each_s(self) -> float:
        """Seconds from one sample to the next; 0 before its first answer."""
        return self.busy_s / self.done if self.done else 0.0

    def got(self, samples: int) -> None:
        self.samples += samples

    def lost(self) -> None:
        """It died, and its batches came back."""
        self.samples = 0

    def answered(self, samples: int, since_s: float, now_s: float) -> None:
        """Args: since_s: when it got that batch."""
        self.busy_s += now_s - max(since_s, self.answered_s)
        self.done += samples
        self.samples -= samples
        self.answered_s = now_s


class LastBatches:
    """Decides while the last batches are given out.

    Args:
        paces: of all workers that are ready; none may be 0.
        left: samples that wait.
        batch: samples of a batch.
    """

    def __init__(self, paces: Collection[Pace], left: int, batch: int):
        self._left, self._batch = left, min(batch, left)
        self._even = not all(pace.each_s for pace in paces) or len(paces) < 2
        if not self._even:
            self._even = max(p.each_s for p in paces) < UNEVEN * min(p.each_s for p in paces)
        if not self._even:
            self._rate = sum(1 / pace.each_s for pace in paces)
            self._held = sum(pace.samples for pace in paces)
            self._first, self._second = sorted(map(self._ends_s, paces))[:2]

    def _ends_s(self, pace: Pace) -> float:
        """Seconds until a worker would be done with one more batch."""
        return (pace.samples + self._batch) * pace.each_s

    def should_have(self, pace: Pace) -> bool:
        """Whether a worker should get a batch. The one that would be done with it first always should."""
        if self._even:
            return True
        own = self._ends_s(pace)
        others = self._second if own <= self._first else self._first
        without = (self._left + self._held - pace.samples) / (self._rate - 1 / pace.each_s)
        return own <= max(others, without)
