"""Decides when a worker counts as hung. Pure: it is told what each worker does and how much time passed, and ends
nothing.

There are two signs, each with its own limit, because a false alarm costs a model load:

* No beat: nothing at all comes from the worker (a stopped process, a frozen machine). A healthy worker sends a beat
  every second whatever its batches do, so twenty seconds without one are enough once it has worked. While it opens or
  works on its first batch, libraries may hold Python's lock for long.
* No answer: beats come, but no batch ends (a hung kernel, a deadlock). The allowed time is learned from the worker's
  own batches of the same kind; a kind that is new to it may have to be compiled first. Workers of a service are never
  ended for this: their requests have their own --timeout, and may wait long for the service.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from fastgen.types import Batch, ImageParams

TICK_S = 1.0
"""Seconds between two checks."""
LONGEST_TICK_S = 2.0
"""The time between two checks counts as at most this: while this process itself was stopped, or its caller was busy
with a result, no worker could be heard."""
BEAT_WARN_S, BEAT_END_S = 8.0, 20.0
FIRST_BEAT_WARN_S, FIRST_BEAT_END_S = 120.0, 600.0
"""Limit until it has answered for its first batch."""
ANSWER_WARN_S, ANSWER_END_S = 30.0, 300.0
ANSWER_WARN_TIMES, ANSWER_END_TIMES = 5.0, 20.0
"""The limit is the longer of this many seconds and this many times the longest batch of that kind. Twenty times is more
than a batch loses by running sample by sample after an out-of-memory error."""
NEW_WARN_S, NEW_END_S = 300.0, 3600.0
"""For a kind that it has not done yet, and for opening: an early warning, and an hour for the longest compilation."""

Action = Literal["", "warn", "end"]
Kind = tuple


@dataclass
class Watch:
    """What is known about one worker."""

    may_end_unanswered: bool = True
    """False for the workers of a service."""
    may_take_days: bool = False
    """Whether it is no news that a batch is not answered."""
    silent_s: float = 0.0
    """Seconds without a beat."""
    unanswered_s: float = 0.0
    """Seconds without an answer, while it had batches or opened."""
    learned: dict[Kind, float] = field(default_factory=dict)
    """Kind of batch -> longest seconds per step since it was started."""
    _beats: int | None = None
    _warn_at: float = 0.0

    def started(self) -> None:
        """It opens its backend, or opens it again."""
        self.silent_s = self.unanswered_s = self._warn_at = 0.0
        self.learned.clear()

    def answered(self, batch: Batch | None = None, took_s: float = 0.0) -> None:
        """It is open, or it finished a batch after `took_s` seconds."""
        self.unanswered_s = self._warn_at = 0.0
        if batch is not None:
            kind = _kind(batch)
            self.learned[kind] = max(self.learned.get(kind, 0.0), took_s / _steps(batch))

    def look(self, passed_s: float, beats: int | None, held: Collection[Batch], opening: bool) -> Action:
        """What to do about it now; `why` then has the reason.

        Args:
            passed_s: seconds since the last check.
            beats: the worker's signs of life so far; None if it gives none.
            held: the batches that it has.
            opening: whether its backend is not open yet.
        """
        passed_s = min(passed_s, LONGEST_TICK_S)
        self.silent_s = 0.0 if beats is None or beats != self._beats else self.silent_s + passed_s
        self._beats = beats
        counts = opening or (held and not self.may_take_days)
        self.unanswered_s = self.unanswered_s + passed_s if counts else 0.0
        if not (held or opening):
            return ""
        beat_warn, beat_end = self._beat_limits()
        if self.silent_s < beat_warn and self.unanswered_s < ANSWER_WARN_S:
            return ""
        answer_warn, answer_end = self._answer_limits(held)
        if self.silent_s >= beat_end or (self.unanswered_s >= answer_end and self.may_end_unanswered and not opening):
            return "end"
        waited = max(self.silent_s / beat_warn, self.unanswered_s / answer_warn)
        if waited < max(1.0, self._warn_at):
            return ""
        self._warn_at = 2 * waited
        return "warn"

    def why(self, held: Collection[Batch], opening: bool) -> str:
        """What is wrong with it, for messages."""
        rows = sum(len(batch.requests) for batch in held)
        doing = "opens its engine" if opening else f"holds {rows} row{'s' * (rows > 1)}"
        beat_warn, beat_end = self._beat_limits()
        if self.silent_s >= beat_warn:
            return f"silent for {self.silent_s:.0f} s, no sign of life, while it {doing} (limit {beat_end:.0f} s)"
        usual = [self.learned[kind] * _steps(batch) for batch in held if (kind := _kind(batch)) in self.learned]
        known = f"; such batches took up to {max(usual):.1f} s" if usual else ""
        _, end = self._answer_limits(held)
        limit = f" (limit {end:.0f} s)" if self.may_end_unanswered and not opening else ""
        return f"no answer for {self.unanswered_s:.0f} s while it {doing}{known}{limit}"

    def _beat_limits(self) -> tuple[float, float]:
        if self.learned:
            return BEAT_WARN_S, BEAT_END_S
        return FIRST_BEAT_WARN_S, FIRST_BEAT_END_S

    def _answer_limits(self, held: Collection[Batch]) -> tuple[float, float]:
        if not held or not all(_kind(batch) in self.learned for batch in held):
            return NEW_WARN_S, NEW_END_S
        usual = max(self.learned[_kind(batch)] * _steps(batch) for batch in held)
        warn, end = ANSWER_WARN_TIMES * usual, ANSWER_END_TIMES * usual
        return max(ANSWER_WARN_S, warn), max(ANSWER_END_S, end)


def _kind(batch: Batch) -> Kind:
    """What must be equal for batches to take about the same time per step."""
    return batch.bucket, batch.samples


def _steps(batch: Batch) -> int:
    return max((r.params.steps for r in batch.requests if isinstance(r.params, ImageParams)), default=1) or 1
