"""What every backend offers. A backend turns one batch into results; it is opened in the process that runs it."""

from __future__ import annotations

from typing import Protocol

from fastgen.config.settings import Settings
from fastgen.types import Batch, Result


class Backend(Protocol):
    """Turns one batch into results; knows nothing of retries, other backends, processes or threads."""

    def open(self) -> dict:
        """Load what is needed. Returns facts for run.json. Raises ModelError for what the user can mend."""

    def run(self, batch: Batch) -> list[Result]:
        """One result per request, in the same order. Synchronous; safe to call from two threads."""

    def reconfigure(self, settings: Settings) -> None:
        """From now on work for another run, whose `settings.engine_key()` is the same. Nothing is under way."""

    def close(self) -> None: ...
