"""The threads that compute, and what they do next. Does not know batches, models or devices.

Work is a generator that names, before each of its stages, the parts of the model that the stage needs. Usually a thread
does one work to its end. If parts of the model take turns on the device, one thread does stages of many works: first
all that need the parts which are there, so that weights move once for all waiting works and not once for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Work = Generator[tuple[str, ...], None, Any]
LONGEST_TURN_S = 300.0
"""After this time the parts on the device make way even if there is more for them to do: what is finished must be
saved, and a worker that gives no answer for very long counts as hung."""


class EngineThreads:
    """Args:
    count: threads.
    enter: each thread calls this first.
    by_parts: whether parts take turns on the device; then `count` is 1.
    """

    def __init__(self, count: int, enter: Callable[[], None], by_parts: bool, longest_turn_s: float = LONGEST_TURN_S):
        self._pool = ThreadPoolExecutor(count, "engine", enter)
        self._by_parts = by_parts
        self._longest_turn_s = longest_turn_s
        self._lock = threading.Lock()
        self._waiting: list[tuple[tuple[str, ...], Work, Future]] = []
        """In the order of their submission, with the parts that they need next; () before they have started."""
        self._there: tuple[str, ...] = ()
        self._since = 0.0

    def submit(self, work: Work) -> Future:
        """What the work returns, when it is done."""
        future: Future = Future()
        self._add((), work, future)
        return future

    def close(self) -> None:
        """Finish what was submitted, then end."""
        self._pool.shutdown()

    def _add(self, *one: Any) -> None:
        with self._lock:
            self._waiting.append(one)
        self._pool.submit(self._advance)  # as many calls as there is work waiting

    def _advance(self) -> None:
        with self._lock:
            needs, work, future = self._waiting.pop(self._choose())
        try:
            needs = next(work)
            while not self._by_parts:
                needs = next(work)
        except StopIteration as ended:
            future.set_result(ended.value)
        except BaseException as error:
            future.set_exception(error)
        else:
            self._add(needs, work, future)

    def _choose(self) -> int:
        """The position of the work that goes on."""
        if not self._by_parts:
            return 0
        needs = [one[0] for one in self._waiting]
        if () in needs:
            return needs.index(())  # up to its first stage it needs nothing
        over = time.monotonic() - self._since > self._longest_turn_s
        others = [at for at, parts in enumerate(needs) if parts != self._there]
        if self._there in needs and not (over and others):
            return needs.index(self._there)
        self._there, self._since = needs[others[0]], time.monotonic()
        return others[0]
