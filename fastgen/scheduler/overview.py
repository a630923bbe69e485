"""A run at one moment, in figures: for metrics, and for anyone who shows a run from outside. Reads only; another thread
than the loop's may call it."""

from __future__ import annotations

import time
from typing import Any

from fastgen.scheduler.budget import Ledger
from fastgen.scheduler.progress import Progress
from fastgen.scheduler.retries import Retries
from fastgen.scheduler.routing import Route
from fastgen.scheduler.worker_pool import WorkerPool
from fastgen.scheduler.worker_state import WorkerState


def overview(
    progress: Progress, route: Route, retries: Retries, pool: WorkerPool, ledger: Ledger, expected: int
) -> dict[str, Any]:
    """What a run is doing now.

    Args:
        expected: roughly how many rows INPUT has; 0 if unknown.

    Returns:
        state; counts as in run.json; expected; waiting (rows that wait for a batch or for their next try); per_second
        (rows since the first worker was ready); cost_usd; workers: name, backend, state, in_flight (rows), and what
        `Account.summary` has.
    """
    counts, now = dict(progress.counts), time.monotonic()
    busy = now - progress.busy_since if progress.busy_since else 0.0
    return {
        "state": progress.state,
        "counts": counts,
        "expected": expected,
        "waiting": len(route) + len(retries),
        "per_second": round(counts.get("new", 0) / busy, 3) if busy else 0.0,
        "cost_usd": ledger.spent,
        "workers": [_worker(state, pool) for state in list(pool.states)],
    }


def _worker(state: WorkerState, pool: WorkerPool) -> dict[str, Any]:
    held = list(state.in_flight.values())
    doing = "ending" if state.killed else "busy" if held else "ready" if state.ready else "loading"
    return {
        "name": state.worker.name,
        "backend": state.group.settings.backend.name,
        "state": doing,
        "in_flight": sum(len(one.batch.requests) for one in held),
        **state.account.summary(pool.clock(), min((one.since for one in held), default=None)),
    }
