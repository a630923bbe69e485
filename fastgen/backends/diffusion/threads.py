"""The threads that compute, and what they do next: stages of batches, and steps. Does not know batches, models or
devices.

Work is a generator that names, before each of its stages, the parts of the model that the stage needs, or that returns
futures to wait for; other work goes on meanwhile. Whatever is ready goes first, so that its samples can join the steps,
and what is finished is saved. If parts of the model take turns on the device, one thread does stages of many works:
first all that need the parts which are there, so that weights move once for all waiting works and not once for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

Parts = tuple[str, ...]
Work = Generator[Parts | list[Future], None, Any]
LONGEST_TURN_S = 300.0
"""After this time the parts on the device make way even if there is more for them to do: what is finished must be
saved, and a worker that gives no answer for very long counts as hung."""
STEPS: Parts = ("transformer",)
"""The parts that a step needs."""


class Stepper(Protocol):
    """What is stepped while no work is ready; see `StepEngine`."""

    wake: Callable[[], None]

    def has_work(self, stream: int) -> bool:
        """Whether the stream has anything to do."""

    def step(self, stream: int) -> None:
        """Do a little. Called by one thread at a time for each stream."""


class EngineThreads:
    """Args:
    count: threads, and streams of the stepper.
    enter: each thread calls this first.
    by_parts: whether parts take turns on the device; then `count` is 1.
    stepper: what the futures that works wait for come from.
    """

    def __init__(
        self,
        count: int,
        enter: Callable[[], None],
        by_parts: bool,
        longest_turn_s: float = LONGEST_TURN_S,
        stepper: Stepper | None = None,
    ):
        self._pool = ThreadPoolExecutor(count, "engine", enter)
        self._by_parts = by_parts
        self._longest_turn_s = longest_turn_s
        self._stepper = stepper
        self._lock = threading.Lock()
        self._ready: list[tuple[Parts, Work, Future]] = []
        """Works that can go on, in the order in which they could, with the parts that they need next; () for none."""
        self._resting = list(range(count))
        """The streams that no thread works for, because there was nothing to do."""
        self._there: Parts = ()
        self._since = 0.0
        if stepper is not None:
            stepper.wake = self._wake

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
            self._ready.append(one)
        self._wake()

    def _wake(self) -> None:
        """There is something to do: have a thread look, if any rests."""
        with self._lock:
            stream = self._resting.pop() if self._resting else None
        if stream is not None:
            with suppress(RuntimeError):  # while it closes, the threads at work do the rest
                self._pool.submit(self._serve, stream)

    def _serve(self, stream: int) -> None:
        """Do what there is to do, until there is nothing."""
        while True:
            with self._lock:
                chosen = self._choose(stream)
                if chosen is None:
                    self._resting.append(stream)
                    return
                one = self._ready.pop(chosen) if chosen < len(self._ready) else None
            if one is not None:
                self._advance(*one[1:])
            elif self._stepper is not None:
                self._stepper.step(stream)

    def _advance(self, work: Work, future: Future) -> None:
        """The next stages of a work."""
        try:
            needs = next(work)
            while not self._by_parts and not isinstance(needs, list):
                needs = next(work)
        except StopIteration as ended:
            future.set_result(ended.value)
        except BaseException as error:
            future.set_exception(error)
        else:
            if isinstance(needs, list):
                _when_done(needs, lambda: self._add((), work, future))
            else:
                self._add(needs, work, future)

    def _choose(self, stream: int) -> int | None:
        """The position of the work that goes on; one behind the last for a step; None if there is nothing to do."""
        steps = self._stepper is not None and self._stepper.has_work(stream)
        if not self._by_parts:
            return 0 if self._ready or steps else None
        needs = [one[0] for one in self._ready] + ([STEPS] if steps else [])
        if not needs:
            return None
        if () in needs:
            return needs.index(())  # up to its next stage it needs nothing
        over = time.monotonic() - self._since > self._longest_turn_s
        others = [at for at, parts in enumerate(needs) if parts != self._there]
        if self._there in needs and not (over and others):
            return needs.index(self._there)
        self._there, self._since = needs[others[0]], time.monotonic()
        return others[0]


def _when_done(futures: list[Future], call: Callable[[], None]) -> None:
    """Call once all of them are done, in the thread that is the last."""
    lock, left = threading.Lock(), len(futures)

    def one_less(_: Future) -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = left == 0
        if is_last:
            call()

    for future in futures:
        future.add_done_callback(one_less)
