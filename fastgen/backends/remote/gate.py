"""How many requests go to an endpoint at the same time, and when. All threads of a process pass through one gate.

Concurrency grows while answers come: it doubles per round trip until the first complaint, then grows by one. It shrinks
by a third when the service asks for a pause. Then no request is let through for as long as the service asks, or, if it
does not say, for longer each time. After that one request is tried alone, and the others follow only when it is
answered. So a minute of refusals costs a handful of requests, however many rows there are. Does not know HTTP.

Source of the scheme: additive increase, multiplicative decrease (Chiu and Jain 1989); the numbers are ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["answered", "slow down", "down", "neither"]
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Used if the service does not say how long."""
SHRINK = 0.7
DOWN_AFTER = 3
"""Consecutive requests without any answer before the service counts as down."""


class Closed(Exception):
    """No more requests are let through."""


@dataclass(frozen=True)
class Ticket:
    epoch: int
    """Number of pauses before the request was let through."""


class Gate:
    """Args: most: maximum requests in flight; rpm: requests per minute, 0 for no limit; first: requests in flight at
    the start."""

    def __init__(self, most: int, rpm: int = 0, first: int = 0, clock: Callable[[], float] = time.monotonic):
        self.most, self.rpm, self.clock = most, rpm, clock
        self.limit = float(min(first or most, most))
        self.inflight = 0
        self.epoch = 0
        self.peak = 0
        self.answers = 0
        """Requests that were answered, whatever the answer was."""
        self._doubling = True
        self._paused_until = 0.0
        self._pause_s = 0.0
        self._proving = False
        """A pause has ended, but no request has been answered since."""
        self._probes = 0
        self._unanswered = 0
        self._next_at = 0.0
        self._closed = False
        self._changed = threading.Condition()

    def enter(self, begun: bool = False) -> Ticket:
        """Wait until a request may be sent. Raises Closed, except for a row that has `begun`."""
        with self._changed:
            while (begun or not self._closed) and (wait := self._wait()) != 0:
                self._changed.wait(wait)
            if self._closed and not begun:
                raise Closed
            if self.rpm:
                self._next_at = max(self.clock(), self._next_at) + 60 / self.rpm
            self.inflight += 1
            self.peak = max(self.peak, self.inflight)
            self._probes += 1
            return Ticket(self.epoch)

    def leave(self, ticket: Ticket, outcome: Outcome, retry_after: float = 0.0) -> None:
        """The request has ended. `retry_after`: seconds that the service asked to wait, 0 if it did not say."""
        with self._changed:
            self.inflight -= 1
            now, was = ticket.epoch == self.epoch, (self.epoch, self._proving)
            if now:
                self._probes -= 1
            if outcome in ("answered", "neither"):
                self.answers += 1
                self._unanswered = 0
                if now:
                    self._proving, self._pause_s = False, 0.0
                if outcome == "answered":
                    step = 1.0 if self._doubling else 1.0 / self.limit
                    self.limit = min(float(self.most), self.limit + step)
            elif now:  # a request from before the pause reports nothing new
                self._unanswered += outcome == "down"
                if outcome == "slow down" or self._unanswered >= DOWN_AFTER or self._proving:
                    self._pause(retry_after)
            if (self.epoch, self._proving) != was:
                self._changed.notify_all()
            else:
                self._changed.notify(2)  # the place of this request, and one more if the limit grew

    def close(self) -> None:
        """Turn away all requests that wait, and all that come later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _pause(self, asked: float) -> None:
        self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))
        self._paused_until = self.clock() + (asked or self._pause_s)
        if not self._proving:  # shrink once per pause, however many tries it takes
            self.limit, self._doubling = max(1.0, self.limit * SHRINK), False
        self._proving, self._probes, self._unanswered = True, 0, 0
        self.epoch += 1

    def _wait(self) -> float | None:
        """Seconds to wait before looking again, None for "until something changes", 0 for now."""
        pause = max(self._paused_until, self._next_at if self.rpm else 0.0) - self.clock()
        if pause > 0:
            return pause
        if self.inflight >= int(self.limit) and not (self._proving and not self._probes):
            return None
        return None if self._proving and self._probes else 0
