"""How long a bench still takes, by what its starts and rounds took so far. Does not know arms."""

from __future__ import annotations

import statistics


class Eta:
    """Args: starts, rounds: how many there are in all."""

    def __init__(self, starts: int, rounds: int):
        self.starts = starts
        self.rounds = rounds
        self._starts: list[float] = []
        self._rounds: list[float] = []

    def started(self, seconds: float) -> None:
        """An engine is ready, after so many seconds."""
        self._starts.append(seconds)

    def played(self, seconds: float) -> None:
        """An arm has done one round."""
        self._rounds.append(seconds)

    def skip(self, rounds: int) -> None:
        """So many rounds will not be, because an arm does not run here."""
        self.rounds -= rounds

    @property
    def left_s(self) -> float:
        """Seconds."""
        start = statistics.mean(self._starts) if self._starts else 0.0
        each = statistics.mean(self._rounds) if self._rounds else 0.0
        return max(0, self.starts - len(self._starts)) * start + max(0, self.rounds - len(self._rounds)) * each

    def __str__(self) -> str:
        """Such as "about 12 min left"; "" at the end, and before anything is known."""
        left = self.left_s
        if not self._rounds or not left:
            return ""
        return f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left"
