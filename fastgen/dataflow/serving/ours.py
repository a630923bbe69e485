"""What all servings here have in common: the engine that stays open between calls, the progress of a call, and the
report of failed inputs: in the log, in `failures`, or as an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import fastgen
from fastgen.dataflow import get_logger
from fastgen.dataflow.calls import Answer, ask, check
from fastgen.dataflow.serving.wording import in_parameters

MOST_NAMED = 20


class OurServing:
    """A mixin for servings. Args: strict: whether a call with failed inputs raises, after all others are done.
    progress: whether a call shows how far it is.
    """

    parameters: ClassVar[dict[str, str]] = {}
    """fastgen's flag -> the parameter of this serving, for messages, if the two differ in more than dashes."""

    def __init__(self, strict: bool, progress: bool = True):
        self.strict, self.progress = strict, progress
        # Not a method: the thread of an engine keeps a reference, which would keep this serving, and so the thread, for
        # ever.
        self._worded = partial(in_parameters, names=self.parameters)
        self._session = fastgen.Session()
        self.failures: list[dict[str, str]] = []
        """{"key", "kind", "message"} of each input that failed in the last call."""

    def cleanup(self) -> None:
        """End the engine or server that the last call left open. A later call starts one again."""
        self._session.close()
        self._session = fastgen.Session()

    def _check(self, task: str, **flags: Any) -> fastgen.Settings:
        """The settings with which a call would run. Starts nothing. Raises SettingsError."""
        with self._in_our_words():
            return check(task, **flags)

    def _run(
        self,
        task: str,
        rows: list[dict],
        keys: list[str],
        settle: Callable[[int, Answer], None],
        **more: Any,
    ) -> None:
        """Run the rows of a call.

        Args:
            keys: the name of each input, in messages.
            settle: gets the number and the answer of each input as they come.
            more: arguments of `calls.ask`.
        Raises:
            FastgenError: the run cannot continue (what was reported is safe), or the serving is strict and inputs
                failed.
        """
        self.failures = []

        def tell(place: int, answer: Answer) -> None:
            if answer.kind:
                answer = Answer(answer.value, answer.kind, self._worded(answer.message))
                self._note(keys[place], answer)
            settle(place, answer)

        with self._in_our_words():
            ask(self._session, task, rows, tell=tell, worded=self._worded, progress=self.progress, **more)
        self._end(len(rows))

    def _note(self, key: str, answer: Answer) -> None:
        self.failures.append({"key": key, "kind": answer.kind, "message": answer.message})
        get_logger().error("%s: %s [%s]", key[:80], answer.message, answer.kind)

    def _end(self, inputs: int) -> None:
        """Raises FastgenError if the serving is strict."""
        if not self.strict or not self.failures:
            return
        named = "\n".join(f"{one['key'][:80]}: {one['message']} [{one['kind']}]" for one in self.failures[:MOST_NAMED])
        more = f"\nand {len(self.failures) - MOST_NAMED} more" if len(self.failures) > MOST_NAMED else ""
        raise fastgen.FastgenError(f"{len(self.failures)} of {inputs} inputs failed:\n{named}{more}")

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except fastgen.FastgenError as error:
            error.args = (self._worded(str(error)), *error.args[1:])
            raise
