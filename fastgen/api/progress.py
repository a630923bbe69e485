"""How far a run is, for Python callers: the display of the command line, in a notebook, on a terminal, or as lines in a
log. Does not know how rows are run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from fastgen.scheduler.run import Emit, Run
from fastgen.types import Result
from fastgen.view import live


class Shown:
    """Args: visible: False shows nothing; emit: of the caller, which gets every event."""

    def __init__(self, visible: bool, emit: Emit | None = None):
        self._visible = visible
        self._caller = emit
        self._display: live.Live | live.Lines | None = None

    def emit(self, event: str, **facts: Any) -> None:
        """The run calls this."""
        if event == "progress" and self._display is not None:
            self._display.take(facts)
        if self._caller is not None:
            self._caller(event, **facts)

    def over(self, run: Run, results: Iterator[Result]) -> Iterator[Result]:
        """The results, with the display while they are taken, and one line about the run after it."""
        if not self._visible:
            yield from results
            return
        display = self._display = live.display() or live.Lines(run.settings.task)
        display.start()
        try:
            for result in results:
                display.count(run.counts)
                yield result
        finally:
            self._display = None
            end = run.progress() | {"workers": [], "eta_seconds": None}
            if isinstance(display, live.Notebook):
                display.take(end)
            display.stop()
            if not isinstance(display, live.Notebook):
                print(f"{run.settings.task}: {live.line(end)}", file=sys.stderr, flush=True)
