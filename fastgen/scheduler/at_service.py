"""What a run with a Batch API has at the service: says so, and clears away what has become results. Reads the parcels
of the run folder (output/parcels.py); does not know services.
"""

from __future__ import annotations

import time
from pathlib import Path

from fastgen.errors import RunFolderError
from fastgen.output import parcels
from fastgen.output.journal import Journal
from fastgen.output.parcels import Parcel
from fastgen.scheduler.progress import Emit

LOOK_EVERY_S, SWEEP_EVERY_S = 5.0, 30.0
TROUBLE_EVERY_S = 300.0
"""Between two warnings in the same words."""


class AtService:
    """Args: out: the run folder."""

    def __init__(self, out: Path, journal: Journal, emit: Emit):
        self._out, self._journal, self._emit = out, journal, emit
        self._looked = self._swept = time.monotonic()
        self._said: tuple | None = None
        self._warned: dict[str, float] = {}

    def begin(self) -> None:
        """Say what an earlier run has left there."""
        self.sweep()
        if found := parcels.at_service(self._out):
            self._emit(
                "warning", message=f"{parcels.described(found)} from an earlier run; this run waits for the results"
            )
        self._tell(found)

    def look(self, now: float) -> None:
        """Tell how far it is, if that has changed, and what is wrong."""
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        found = parcels.at_service(self._out)
        self._tell(found)
        for trouble in dict.fromkeys(parcel.trouble for parcel in found if parcel.trouble):
            if now - self._warned.get(trouble, -TROUBLE_EVERY_S) >= TROUBLE_EVERY_S:
                self._warned[trouble] = now
                names = [parcel.id or parcel.name for parcel in found if parcel.trouble == trouble]
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                self._emit("warning", message=f"batch {names[0]}{more}: {trouble}")
        if now - self._swept >= SWEEP_EVERY_S:
            self.sweep()

    def end(self) -> None:
        """Say what is still there."""
        self.sweep()
        if found := parcels.at_service(self._out):
            message = f"{parcels.described(found)}; run the same command again to get the results"
            self._emit("warning", message=message)

    def sweep(self) -> None:
        """Clear away what has become results. Raises DiskError."""
        self._swept = time.monotonic()
        self._journal.sync()
        parcels.sweep(self._out, self._results_of)

    def _results_of(self, id: str) -> int:
        return sum(1 for _ in self._journal.history(id)) if hash(id) in self._journal.index else 0

    def _tell(self, found: list[Parcel]) -> None:
        counts = (len(found), sum(p.requests for p in found), sum(p.done for p in found), sum(p.failed for p in found))
        if counts != self._said and (found or self._said):
            self._emit("batches", **dict(zip(("batches", "requests", "done", "failed"), counts, strict=True)))
        self._said = counts


def refuse(out: Path, durable: bool, fresh: bool) -> None:
    """Raise RunFolderError if this run would ask again for what an earlier one has at the service."""
    if not (fresh or not durable) or not (found := parcels.at_service(out)):
        return
    flag = "--fresh" if fresh else "without --batch-api"
    fix = "leave --fresh out" if fresh and durable else "use --batch-api" + (" without --fresh" if fresh else "")
    raise RunFolderError(
        f"-o {out}: {parcels.described(found)}, and {flag} this run would ask and pay for the same rows again. To get "
        f"their results, {fix}. To give them up, cancel them at the service and delete {out / parcels.FOLDER}"
    )
