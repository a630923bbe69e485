"""How often each row was tried, and which rows are tried again, and when. Does not know workers or the clock: callers
pass the time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from fastgen.scheduler.failure_policy import LONGEST_WAIT_S
from fastgen.scheduler.routing import Group
from fastgen.types import Done, Failed, Request, Result

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 32.0
"""Pause before the next try; it doubles each time. A service may ask for a longer one."""


@dataclass
class Tries:
    all: int = 0
    strikes: int = 0
    """Tries at the row's current backend, without those where it was only asked to wait."""
    waits: int = 0
    since: float | None = None
    """The time when it first failed there."""
    cost: float = 0.0
    """USD of all tries."""


class Retries:
    def __init__(self) -> None:
        self._tries: dict[str, Tries] = {}
        self._later: list[tuple[float, int, Request, Group]] = []
        """Heap of (due, tie-breaker, request, where)."""

    def __len__(self) -> int:
        """Rows that wait for their next try."""
        return len(self._later)

    def note(self, request: Request, result: Result, now: float) -> Result:
        """Count a try. Returns the result with the number and the cost of all tries of the row."""
        if isinstance(result, Done) and request.id not in self._tries and not result.cost:  # as nearly always
            return result if result.content == request.content else replace(result, content=request.content)
        tries = self._tries.setdefault(request.id, Tries())
        tries.all += result.attempts
        tries.cost += result.cost
        if isinstance(result, Done):
            del self._tries[request.id]
            return replace(result, content=request.content, attempts=tries.all, cost=round(tries.cost, 8))
        tries.since = now if tries.since is None else tries.since
        if result.kind == "rate_limited":
            tries.waits += 1
        else:
            tries.strikes += 1
        return replace(result, content=request.content, attempts=tries.all, cost=round(tries.cost, 8))

    def here(self, failed: Failed) -> Failed:
        """The failure with the number of tries that `failure_policy.decide` needs."""
        return replace(failed, attempts=self._tries[failed.id].strikes)

    def waited_s(self, id: str, now: float) -> float:
        """Seconds since a row first failed at its current backend."""
        since = self._tries[id].since
        return 0.0 if since is None else now - since

    def later(self, request: Request, group: Group, failed: Failed, now: float) -> None:
        """Try again at the time that the service named, but not before a pause that doubles each time, and in time for
        a last try."""
        tries = self._tries[request.id]
        tried = tries.waits if failed.kind == "rate_limited" else tries.strikes
        pause = max(failed.retry_after, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(tried - 1, 16)))
        left = LONGEST_WAIT_S - self.waited_s(request.id, now)
        heapq.heappush(self._later, (now + max(0.0, min(pause, left)), id(request), request, group))

    def due(self, now: float) -> Iterator[tuple[Request, Group]]:
        while self._later and self._later[0][0] <= now:
            _, _, request, group = heapq.heappop(self._later)
            yield request, group

    def next_due(self) -> float | None:
        return self._later[0][0] if self._later else None

    def elsewhere(self, id: str) -> None:
        """Another backend gets the row, where it has not been tried yet."""
        tries = self._tries[id]
        tries.strikes = tries.waits = 0
        tries.since = None

    def forget(self, id: str) -> None:
        self._tries.pop(id, None)

    def take_back(self, group: Group) -> list[Request]:
        """Everything that was to be tried again at a backend."""
        taken = [entry for entry in self._later if entry[3] is group]
        self._later = [entry for entry in self._later if entry[3] is not group]
        heapq.heapify(self._later)
        return [entry[2] for entry in taken]
