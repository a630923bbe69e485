"""Several streams of the step engine in each thread, a step of each in turn.

With stages on several devices each of these works on the group of another stream at the same time, because a step is
only enqueued. Does not know devices or stages.
"""

from __future__ import annotations

from collections.abc import Callable

from fastgen.backends.diffusion.threads import Stepper


class InTurn:
    """A `Stepper` whose streams are `each` streams of another one.

    Args:
        each: 1 changes nothing.
    """

    def __init__(self, steps: Stepper, each: int):
        self._steps = steps
        self._each = each
        self._next: dict[int, int] = {}
        """Of each stream, which of its own is next."""

    @property
    def wake(self) -> Callable[[], None]:
        return self._steps.wake

    @wake.setter
    def wake(self, call: Callable[[], None]) -> None:
        self._steps.wake = call

    def has_work(self, stream: int) -> bool:
        return any(self._steps.has_work(stream * self._each + number) for number in range(self._each))

    def step(self, stream: int) -> None:
        """A step of the next one that has something to do."""
        for _ in range(self._each):
            number = self._next.get(stream, 0)
            self._next[stream] = (number + 1) % self._each
            if self._steps.has_work(stream * self._each + number):
                self._steps.step(stream * self._each + number)
                return
