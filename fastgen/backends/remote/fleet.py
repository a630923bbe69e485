"""Several servers of one model as one backend. A row goes to the server that will be done with it first; a server that
does not answer is left alone for a while, and its rows go to the others. Does not know what a row asks for.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from msgspec.structs import replace

from fastgen.backends.base import Backend
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import EngineError, FastgenError, ModelError
from fastgen.types import Batch, Failed, Kind, Result

THEIR_FAULT: frozenset[Kind] = frozenset({"unavailable", "rate_limited", "gone", "unauthorized", "quota"})
"""Failures of a server, not of a row."""
LEFT_ALONE_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""How long a server is left alone after so many failures in a row; the last one from then on."""
LOOK_AGAIN_S = 0.5
FIRST_WINDOW = 8
"""Rows that a server gets before it has done one."""
MEMORY = 0.98
"""How much of what was measured is kept with each new row. A server finishes the rows of its slots almost at once and
then none for a while, so a short memory would find it now fast, now slow, and give rows to the wrong one."""

USUAL_PAUSES = 2.0
"""After a pause of so many usual ones a server is slower than it was."""


class Member:
    """One server, and how it does."""

    def __init__(self, backend: Backend, url: str, most: int):
        self.backend, self.url, self.most = backend, url, most
        self.is_open = False
        self.running = 0
        """Rows that it has."""
        self.failures = 0
        """In a row."""
        self.again_at = 0.0
        self.window = min(FIRST_WINDOW, most)
        """Rows that it may have; one more with each that it has done."""
        self._busy_s, self._done = 0.0, 0.0
        """Seconds in which it had rows, and rows that it has done; older ones count less."""
        self._since, self._pause_s = 0.0, 0.0
        """When it last did a row or began, and how long it usually does none."""

    def is_free(self, now: float) -> bool:
        """Whether it may have another row. After a failure it gets one alone."""
        if now < self.again_at:
            return False
        return self.running < (1 if self.failures else self.window)

    def load_s(self, now: float) -> float:
        """Seconds until it would be done with one more row."""
        waited_s = now - self._since if self.running else 0.0
        if waited_s <= USUAL_PAUSES * self._pause_s:  # the next rows of its slots are on their way
            waited_s = 0.0
        each_s = self._busy_s / self._done if self._done else 0.0
        return (self.running + 1) * max(each_s, waited_s)

    def began(self, now: float) -> None:
        if not self.running:
            self._since = now
        self.running += 1

    def ended(self, now: float, failed: bool) -> None:
        self.running -= 1
        if failed:
            self.failures += 1
            self.again_at = now + LEFT_ALONE_S[min(self.failures, len(LEFT_ALONE_S)) - 1]
            return
        self.failures, self.again_at = 0, 0.0
        self._pause_s = max(MEMORY * self._pause_s, now - self._since)
        self._busy_s, self._done = MEMORY * self._busy_s + now - self._since, MEMORY * self._done + 1
        self._since = now
        self.window = min(self.most, self.window + 1)


class Fleet:
    """Args:
    make: makes the backend of one server from its settings.
    clock: seconds.
    """

    def __init__(
        self,
        settings: Settings,
        device: Device,
        make: Callable[[Settings, Device], Backend],
        clock: Callable[[], float] = time.monotonic,
    ):
        endpoint = settings.endpoint
        urls = (endpoint.base_url, *endpoint.more_urls)
        most = -(-endpoint.max_inflight // (len(urls) * max(1, len(settings.placement.devices))))
        self._clock = clock
        self._next = threading.Lock()
        """Held by the row that is given away next. The others wait for this, and need not look at every change."""
        self._changed = threading.Condition()
        self._is_closing = False
        self._model = ""
        self.members = [Member(make(_at(settings, url, most), device), url, most) for url in urls]

    def open(self) -> dict:
        facts: dict = {}
        errors: list[FastgenError] = []
        for member in self.members:
            try:
                found = self._open(member)
            except ModelError:
                raise
            except FastgenError as error:
                errors.append(error)
                print(f"{member.url} is left alone for now: {error}", file=sys.stderr)
            else:
                facts = facts or found
        if not facts:
            raise EngineError(str(errors[0]))
        return {**facts, "base_url": [member.url for member in self.members]}

    def _open(self, member: Member) -> dict:
        """Raises ModelError: it serves another model than the others."""
        try:
            facts = member.backend.open()
        except FastgenError:
            member.failures += 1
            member.again_at = self._clock() + LEFT_ALONE_S[-2]
            raise
        model = str(facts.get("model", ""))
        if self._model and model != self._model:
            raise ModelError(
                f"--base-url: {member.url} serves {model}, the others serve {self._model}; name one model with --model"
            )
        self._model = self._model or model
        member.is_open = True
        return facts

    def run(self, batch: Batch) -> list[Result]:
        return [self._one(replace(batch, requests=(request,))) for request in batch.requests]

    def _one(self, batch: Batch) -> Result:
        """The result of one row, from the first server that does not fail for reasons of its own."""
        tried: set[int] = set()
        attempts, cost = 0, 0.0
        while True:
            number = self._pick(tried)
            member = self.members[number]
            result = self._ask(member, batch)
            failed = isinstance(result, Failed) and result.kind in THEIR_FAULT and result.attempts > 0
            with self._changed:
                member.ended(self._clock(), failed)
                self._changed.notify_all()
            attempts, cost = attempts + result.attempts, cost + result.cost
            tried.add(number)
            if not failed or len(tried) == len(self.members) or self._is_closing:
                return replace(result, attempts=attempts, cost=round(cost, 8))

    def _ask(self, member: Member, batch: Batch) -> Result:
        if not member.is_open:
            try:
                self._open(member)
            except FastgenError as error:
                request = batch.requests[0]
                return Failed(request.id, "unavailable", str(error), content=request.content)
        (result,) = member.backend.run(batch)
        return result

    def _pick(self, tried: set[int]) -> int:
        """Wait for the server that is done first with one more row, of those that were not tried for it."""
        with self._next, self._changed:
            while True:
                now = self._clock()
                left = [n for n in range(len(self.members)) if n not in tried]
                up = [n for n in left if now >= self.members[n].again_at]
                if not up and tried:
                    up = left  # all others are known to be down: the row learns it from one of them
                best = min(up or left, key=lambda n: self.members[n].load_s(now))
                # If the best one is full, the row waits for it: another one would be done later.
                if self._is_closing or (up == left and tried) or self.members[best].is_free(now):
                    self.members[best].began(now)
                    return best
                self._changed.wait(LOOK_AGAIN_S)

    def cancel_pending(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for member in self.members:
            if member.is_open:
                member.backend.cancel_pending()

    def reconfigure(self, settings: Settings) -> None:
        for member in self.members:
            member.backend.reconfigure(_at(settings, member.url, member.most))

    def close(self) -> None:
        for member in self.members:
            if member.is_open:
                member.backend.close()


def _at(settings: Settings, url: str, most: int) -> Settings:
    """The settings for one server."""
    one = settings.placement.devices[:1]
    endpoint = replace(settings.endpoint, base_url=url, more_urls=(), max_inflight=most)
    return replace(settings, endpoint=endpoint, placement=replace(settings.placement, devices=one))
