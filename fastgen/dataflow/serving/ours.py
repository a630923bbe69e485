"""What all servings here have in common: the engine that stays between their calls, and what a call notes besides its
answers: which inputs failed, in the log, in `failures`, or as an error."""

from __future__ import annotations

import fastgen
from fastgen.dataflow import get_logger
from fastgen.dataflow.calls import Answer

MOST_NAMED = 20


class OurServing:
    """Mixed into servings. Args: strict: whether a call with failed inputs raises, after all others are done."""

    def __init__(self, strict: bool):
        self.strict = strict
        self._session = fastgen.Session()
        self.failures: list[dict[str, str]] = []
        """Of the last call: {"key", "kind", "message"} of each input that failed."""

    def cleanup(self) -> None:
        """End the engine or server that the last call left. A later call starts one again."""
        self._session.close()
        self._session = fastgen.Session()

    def _begin(self) -> None:
        self.failures = []

    def _note(self, key: str, answer: Answer) -> None:
        if answer.kind:
            self.failures.append({"key": key, "kind": answer.kind, "message": answer.message})
            get_logger().error("%s: %s [%s]", key[:80], answer.message, answer.kind)

    def _end(self, inputs: int) -> None:
        """Raises FastgenError, for a strict serving."""
        if not self.strict or not self.failures:
            return
        named = "\n".join(f"{one['key'][:80]}: {one['message']} [{one['kind']}]" for one in self.failures[:MOST_NAMED])
        more = f"\nand {len(self.failures) - MOST_NAMED} more" if len(self.failures) > MOST_NAMED else ""
        raise fastgen.FastgenError(f"{len(self.failures)} of {inputs} inputs failed:\n{named}{more}")
