"""One backend of the chain: the rows that wait for it, and whether it still takes any. Knows no lanes and no clock.

Rows begin at the first group. Where a backend cannot do a row, or can do none any more, they go to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msgspec.structs import replace

from fastgen import policy
from fastgen.backends import streams
from fastgen.plan import Window
from fastgen.settings import Settings
from fastgen.types import Batch, Done, ImageParams, Request, Result


class Group:
    def __init__(self, settings: Settings, place: int):
        self.settings = settings
        self.place = place
        """0 for the backend that was asked for, 1 for the first fallback."""
        self.window = Window(settings.batch_for, sum(map(streams, settings.devices)))
        self.queue: deque[Batch] = deque()
        """Parts of batches that failed together."""
        self.suspects: deque[Batch] = deque()
        """Batches that were on a lane when it died: each runs with nothing beside it."""
        self.started = False
        self.closed = ""
        """Why it takes no more rows; "" while it does."""
        self._worked = False
        self._useless = 0
        """Answers in a row that no row can do anything about."""
        self._down_since = 0.0

    def __len__(self) -> int:
        """Requests and batches that wait."""
        return len(self.window) + len(self.queue) + len(self.suspects)

    def view(self, request: Request) -> Request:
        """The request as this backend sees it: an API is told a size only where somebody asked for one."""
        if not self.settings.is_remote or not isinstance(request.params, ImageParams):
            return request
        width, height = request.size
        return replace(request, params=replace(request.params, width=width, height=height))

    def next_batch(self, alone: bool, ended: bool) -> tuple[Batch | None, bool]:
        """The next batch, and whether it is a suspect.

        Args:
            alone: whether the lane that asks holds nothing.
            ended: whether no more rows will come.
        """
        if self.suspects:
            return (self.suspects.popleft(), True) if alone else (None, False)
        return (self.queue.popleft() if self.queue else self.window.draw(ended)), False

    def take_back(self) -> Iterator[Request]:
        """All that waits, for another group."""
        for held in (self.queue, self.suspects):
            while held:
                yield from held.popleft().requests
        while (batch := self.window.draw(ended=True)) is not None:
            yield from batch.requests

    def learn(self, result: Result, now: float, last: bool) -> str:
        """Note how a try went. Returns why the backend should get no more rows, or "".

        Args:
            now: seconds on any clock.
            last: whether no other backend could take its rows.
        """
        if isinstance(result, Done) or result.kind in policy.ANSWERED:
            self._worked, self._useless, self._down_since = True, 0, 0.0
        elif result.kind in policy.CLOSING:
            self._useless += 1
            if self._useless >= (policy.MAX_USELESS if self._worked else policy.MAX_USELESS_AT_FIRST):
                return result.message
        elif result.kind == "unavailable":
            self._down_since = self._down_since or now
            patience = policy.OUTAGE_S if last else policy.OUTAGE_WITH_FALLBACK_S
            if now - self._down_since >= patience:
                return f"no answer for {now - self._down_since:.0f} s, last: {result.message}"
        return ""
