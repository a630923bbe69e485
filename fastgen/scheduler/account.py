"""What became of each worker's time and rows, over all its restarts: for the summary and for whoever watches a run. Is
told what happens; does not know workers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fastgen.scheduler.pace import Pace

MOST_REASONS = 8
"""Different reasons of losses that are kept for one worker; further ones count as OTHER."""
OTHER = "other reasons"


@dataclass
class Account:
    """Of one worker. All times are seconds of one clock."""

    pace: Pace
    starts: int = 0
    rows: int = 0
    """Answered for, done or failed."""
    loading_s: float = 0.0
    """In which its backend opened."""
    lost_s: float = 0.0
    """Of work that came to nothing."""
    lost: Counter[str] = field(default_factory=Counter)
    """Why it ended -> rows that it held then."""
    _began_s: float | None = None
    _opening_s: float | None = None
    _ended_s: float | None = None

    def started(self, now_s: float) -> None:
        self.starts += 1
        self._began_s = now_s if self._began_s is None else self._began_s
        self._opening_s, self._ended_s = now_s, None

    def opened(self, now_s: float) -> None:
        """It is ready, or has failed to start."""
        if self._opening_s is not None:
            self.loading_s += now_s - self._opening_s
        self._opening_s = None

    def died(self, reason: str, rows: int, since_s: float | None, now_s: float) -> None:
        """Args: since_s: when it got the oldest batch that it held; None: it held none."""
        self.opened(now_s)
        self._ended_s = now_s
        if since_s is not None:
            self.lost_s += now_s - max(since_s, self.pace.answered_s)
        why = reason.splitlines()[0][:200] if reason else "no reason"
        self.lost[why if why in self.lost or len(self.lost) < MOST_REASONS else OTHER] += rows

    @property
    def restarts(self) -> int:
        return max(0, self.starts - 1)

    def summary(self, now_s: float, since_s: float | None = None) -> dict:
        """For run.json: rows, the share of its time after loading in which it was busy, and what was lost to what.

        Args:
            since_s: when it got the oldest batch that it has; None: it has none.
        """
        began = now_s if self._began_s is None else self._began_s
        loading = self.loading_s + (now_s - self._opening_s if self._opening_s is not None else 0.0)
        whole = max(0.0, (self._ended_s or now_s) - began - loading)
        present = now_s - max(since_s, self.pace.answered_s) if since_s is not None else 0.0
        busy = min(self.pace.busy_s + present, whole)
        return {
            "rows": self.rows,
            "busy": round(busy / whole, 4) if whole else 0.0,
            "busy_seconds": round(busy, 3),
            "loading_seconds": round(loading, 3),
            "idle_seconds": round(max(0.0, whole - busy - self.lost_s), 3),
            "lost_seconds": round(self.lost_s, 3),
            "restarts": self.restarts,
            **({"lost_rows": dict(self.lost)} if self.lost else {}),
        }
