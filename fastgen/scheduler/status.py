"""The event "progress": how far a run is and what its workers do, in plain values. The terminal shows it as a table
with the same names (docs/events.md). Changes nothing."""

from __future__ import annotations

from typing import Any

from fastgen.scheduler.budget import Ledger
from fastgen.scheduler.eta import Estimate
from fastgen.scheduler.progress import Progress
from fastgen.scheduler.worker_pool import WorkerPool
from fastgen.scheduler.worker_state import WorkerState


def facts(progress: Progress, pool: WorkerPool, ledger: Ledger, expected: int, all_read: bool, now: float) -> dict:
    """Args: expected: roughly how many rows there are; all_read: whether all were read; now: by time.monotonic()."""
    counts, estimate = progress.counts, progress.estimate
    settled = counts["done"] + counts["failed"] + counts["kept"]
    if not all_read:  # rows of earlier runs count from the start, not once they are read again
        settled = max(settled, min(progress.earlier, expected))
    made = "captions" if progress.settings.task == "caption" else "images"
    at_work = {
        state.worker.name: sum(request.work for batch in state.batches for request in batch.requests)
        for state in pool.states
        if not state.group.closed
    }
    eta_s = estimate.eta_s(now, expected, at_work)
    busy_s = progress.busy_until - progress.busy_since
    return {
        "rows": settled,
        "total": max(expected, settled) if expected else 0,
        **{name: counts[name] for name in ("done", "failed", "kept")},
        made: counts[made],
        f"{made}_per_second": round(counts[made] / busy_s, 3) if busy_s > 0 else None,
        "eta_seconds": None if eta_s is None else round(eta_s, 1),
        "cost_usd": round(ledger.spent, 6),
        "workers": [_worker(state, estimate, made) for state in pool.states],
    }


def _worker(state: WorkerState, estimate: Estimate, made: str) -> dict[str, Any]:
    batches, name = state.batches, state.worker.name
    rate = estimate.workers[name].rates()[1] if name in estimate.workers else 0.0
    return {
        "lane": name,
        "backend": state.group.settings.backend.name,
        "state": _state(state),
        "bucket": str(batches[0].bucket) if batches else "",
        "batches": len(batches),
        f"{made}_per_second": round(rate, 3),
        "memory_mib": state.peak_mib or getattr(state.worker, "memory_mib", 0),
        "restarts": state.account.restarts,
    }


def _state(state: WorkerState) -> str:
    """ready includes workers that wait for rows; ending: it is being ended, and its batches come back."""
    if state.killed:
        return "ending"
    if state.opening:
        return "restarting" if state.account.restarts else "loading"
    return "working" if state.in_flight else "ready"
