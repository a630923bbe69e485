"""How often each row was tried, and which rows are to be tried again, when. Knows no workers and no clock: times are
given."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from fastgen.scheduler.routing import Group
from fastgen.types import Done, Failed, Request, Result


@dataclass
class Tries:
    all: int = 0
    strikes: int = 0
    """At the backend where the row is now, without those where it was only asked to wait."""
    waits: int = 0
    cost: float = 0.0
    """USD of all of them."""


class Retries:
    def __init__(self) -> None:
        self._tries: dict[str, Tries] = {}
        self._later: list[tuple[float, int, Request, Group]] = []
        """Heap of (due, tie-breaker, request, where)."""

    def __len__(self) -> int:
        """Rows that wait for their time."""
        return len(self._later)

    def note(self, request: Request, result: Result) -> Result:
        """Count a try. Returns the result as the row's: with all tries and what they cost."""
        tries = self._tries.setdefault(request.id, Tries())
        tries.all += result.attempts
        tries.cost += result.cost
        if isinstance(result, Done):
            del self._tries[request.id]
        elif result.kind == "rate_limited":
            tries.waits += 1
        else:
            tries.strikes += 1
        return replace(result, content=request.content, attempts=tries.all, cost=round(tries.cost, 8))

    def here(self, failed: Failed) -> Failed:
        """The failure with the tries that count for what follows from it; see `policy.decide`."""
        tries = self._tries[failed.id]
        return replace(failed, attempts=tries.waits if failed.kind == "rate_limited" else tries.strikes)

    def later(self, request: Request, group: Group, failed: Failed, now: float) -> None:
        """Try again: when the service said, and not before a pause that doubles each time."""
        due = now + max(failed.retry_after, 0.25 * 2 ** min(self.here(failed).attempts, 7))
        heapq.heappush(self._later, (due, id(request), request, group))

    def due(self, now: float) -> Iterator[tuple[Request, Group]]:
        while self._later and self._later[0][0] <= now:
            _, _, request, group = heapq.heappop(self._later)
            yield request, group

    def next_due(self) -> float | None:
        return self._later[0][0] if self._later else None

    def elsewhere(self, id: str) -> None:
        """Another backend gets the row: there it has not been tried."""
        tries = self._tries[id]
        tries.strikes = tries.waits = 0

    def forget(self, id: str) -> None:
        self._tries.pop(id, None)

    def take_back(self, group: Group) -> list[Request]:
        """All that was to be tried again at a backend."""
        taken = [entry for entry in self._later if entry[3] is group]
        self._later = [entry for entry in self._later if entry[3] is not group]
        heapq.heapify(self._later)
        return [entry[2] for entry in taken]
