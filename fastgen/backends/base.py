"""What every backend offers. A backend turns one batch into results; it is opened in the process that runs it."""

from __future__ import annotations

from typing import Protocol

from fastgen.config.settings import Settings
from fastgen.types import Batch, Result


class Backend(Protocol):
    """Turns one batch into results; knows nothing of retries, other backends, processes or threads."""

    def open(self) -> dict:
        """Load what is needed. Returns facts for run.json. Raises ModelError for what the user can fix."""

    def run(self, batch: Batch) -> list[Result]:
        """One result per request, in the same order. Synchronous; safe to call from two threads."""

    def reconfigure(self, settings: Settings) -> None:
        """From now on work for another run, whose `settings.engine()` is the same. Nothing is under way."""

    def cancel_pending(self) -> None:
        """Hand back what has not begun, as failed with 0 attempts; finish what is under way. Called from another thread
        than `run`. Nothing to do where no batch waits for anything but the engine."""

    def close(self) -> None:
        """Let go of what `open` took. Nothing is under way, or what is does not matter any more."""
