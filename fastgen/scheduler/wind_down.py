"""The end of a run before its last row: no more batches, and how long to wait for those in flight."""

from __future__ import annotations

import math

from fastgen.errors import DiskError
from fastgen.scheduler.progress import Progress
from fastgen.scheduler.worker_pool import WorkerPool

GRACE_S = 20.0
"""Time for batches in flight when a run is interrupted. Slurm, Kubernetes and others send SIGKILL 30 s after SIGTERM;
this leaves ten seconds for the engines to stop and for run.json."""
LAST_S = 3.0
"""Time for workers that were ended to give back their batches. A worker stuck in a hung driver may never do so."""


class WindDown:
    """If the run ends for a reason of its own (a full disk, no backend left, no money left), it waits for what is in
    progress: that is being paid for or made, and ends by itself or through the watchdog. If the user interrupted the
    run, it waits GRACE_S."""

    def __init__(self, pool: WorkerPool, progress: Progress):
        self._pool = pool
        self._progress = progress
        self._called_back = False
        self._give_up_at = math.inf
        self._killed = False

    def is_over(self, now: float) -> bool:
        """Call back what has not started, and end what takes too long. Returns whether nothing is left to wait for."""
        if not self._called_back:
            self._called_back = True
            self._pool.cancel_pending()
            if isinstance(self._progress.ending, DiskError) and self._pool.in_flight:
                message = f"{self._progress.ending}; no more rows are started, and those in progress are finished"
                self._progress.emit("warning", message=message)
        if self._progress.state == "interrupting":
            self._limit(now)
        return not self._pool.in_flight or (self._killed and now >= self._give_up_at + LAST_S)

    def _limit(self, now: float) -> None:
        if self._give_up_at == math.inf:
            self._give_up_at = now + GRACE_S
            if self._pool.in_flight:
                message = (
                    f"finishing what is in progress for {GRACE_S:.0f} s at most; press Ctrl-C again to stop at once"
                )
                self._progress.emit("warning", message=message)
        elif now >= self._give_up_at and not self._killed:
            self._killed = True
            self._pool.kill_busy(f"it still worked {GRACE_S:.0f} s after the run was interrupted")
