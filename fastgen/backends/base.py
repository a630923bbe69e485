"""The protocol of a backend. A backend turns one batch into results; it is opened in the process that runs it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from fastgen.config.settings import Settings
from fastgen.types import Batch, Result


class Backend(Protocol):
    """Turns one batch into results; knows nothing of retries, other backends, processes or threads."""

    def open(self) -> dict:
        """Load what is needed. Returns facts for run.json. Raises ModelError for problems that the user can fix."""

    def run(self, batch: Batch) -> list[Result]:
        """One result per request, in the same order. Synchronous; safe to call from two threads."""

    def reconfigure(self, settings: Settings) -> None:
        """From now on work for another run, whose `settings.engine_key()` is the same. No batch is in progress."""

    def cancel_pending(self) -> None:
        """Give back what has not started, as failed with 0 attempts, and finish what is in progress. Called from
        another thread than `run`. Nothing to do if batches only ever wait for the engine."""

    def close(self) -> None:
        """Release what `open` took. Nothing is in progress, or it no longer matters."""


_here = threading.local()
_tell: Callable[[str], None] | None = None


def warn(message: str) -> None:
    """A backend calls this, from any thread, to tell the user something that is about no row."""
    print(message, file=sys.stderr, flush=True)
    if _tell is not None:
        _tell(message)


def warnings_to(tell: Callable[[str], None]) -> None:
    """From now on `tell` gets what the backends of this process have to say; otherwise it is only printed."""
    global _tell
    _tell = tell


@contextmanager
def told_before_paying(tell: Callable[[], None]) -> Iterator[None]:
    """While this thread runs a batch, `tell` is called once before anything that may cost money is sent for it."""
    _here.tell = tell
    try:
        yield
    finally:
        _here.tell = None


def before_paying() -> None:
    """A backend calls this in the thread of `run`, before it sends something that may cost money. If this process then
    dies, the run knows which requests may have been billed and which were never sent."""
    tell, _here.tell = getattr(_here, "tell", None), None
    if tell is not None:
        tell()
