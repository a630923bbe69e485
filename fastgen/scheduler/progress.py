"""The state of a run: what is committed, counted and measured so far, and whether the run should end. Does not know
workers.

A result is written to the journal first; only then is it reported. What cannot be written to a full disk is kept here,
and tried again with the next result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from fastgen.config.settings import Settings
from fastgen.errors import DiskError, FastgenError
from fastgen.output.journal import Journal
from fastgen.scheduler.eta import Estimate
from fastgen.types import Done, Failed, Result

Emit = Callable[..., None]


class Progress:
    """Args: emit: called as emit(event, **facts); earlier: rows that had a result when the run began."""

    def __init__(self, settings: Settings, journal: Journal, emit: Emit, earlier: int = 0):
        self.settings = settings
        self.state = "running"
        """running, interrupting, then interrupted, finished or stopped."""
        self.ending: FastgenError | None = None
        """Why the run sends no more batches. Batches in flight are finished, then this is raised."""
        self.counts: Counter[str] = Counter()
        """rows; done, failed, kept (in all); new, images, captions (made in this run)."""
        self.served_by: Counter[str] = Counter()
        """"backend model" -> rows done in this run."""
        self.stages: Counter[str] = Counter()
        """Seconds by stage, summed over batches and workers."""
        self.work: Counter[str] = Counter()
        """Blocks evaluated and graphs compiled, as counted by the engines; of peak values the highest."""
        self.busy_since = 0.0
        self.busy_until = 0.0
        """From the time when the first engine was ready to the last result, by time.monotonic()."""
        self.emit = emit
        self.earlier = earlier
        self.estimate = Estimate(earlier)
        self._journal = journal
        self._unwritten: list[Result] = []
        """Results that could not be written to the journal yet."""
        self._held = False

    @property
    def winding_down(self) -> bool:
        """Whether no more batches should be sent."""
        return self.ending is not None or self.state == "interrupting"

    def end(self, error: FastgenError) -> None:
        """Send no more batches; `error` is raised after those in flight are finished. The first error counts."""
        self.ending = self.ending or error

    def commit(self, results: list[Result]) -> Iterator[Result]:
        """Write a result to the journal, then count it, report it and return it. A full disk ends the run."""
        self._unwritten += results
        if self._held or not self._unwritten:
            return
        try:
            self._journal.append(self._unwritten)
        except DiskError as error:
            self.end(error)
            return
        committed, self._unwritten = self._unwritten, []
        for result in committed:
            self.estimate.settled(result.id)
            if isinstance(result, Done):
                self._count(result)
            else:
                self.count_failed(result)
            yield result

    def hold(self) -> None:
        """Keep what is committed from now on, until `write_held` writes it all at once."""
        self._held = True

    def write_held(self) -> Iterator[Result]:
        """Commit what was kept since `hold`."""
        self._held = False
        yield from self.commit([])

    @property
    def uncommitted(self) -> int:
        """Results that could not be written to the disk."""
        return len(self._unwritten)

    def _count(self, done: Done) -> None:
        self.counts["done"] += 1
        self.counts["new"] += 1
        self.counts["images"] += len(done.paths)
        self.counts["captions"] += bool(done.text)
        if done.stages:
            self.stages.update(done.stages)
        for name, value in done.work.items():
            self.work[name] = max(self.work[name], value) if "peak" in name else self.work[name] + value
        if self.settings.fallbacks:
            self.served_by[f"{done.backend} {done.model}"] += 1

    def count_failed(self, failed: Failed) -> None:
        """A row failed, in this run or an earlier one."""
        self.counts["failed"] += 1
        self.emit("row_failed", id=failed.id, kind=failed.kind, field=failed.field, message=failed.message)

    def summary(self, engines: dict[str, dict], cost: float, unknown: float = 0.0) -> dict:
        """Counts, rates and seconds by stage, for run.json and the last event.

        Args:
            engines: what each engine reported.
            cost: USD that the run folder has cost so far.
            unknown: the part of it for requests without an answer, which may not have been billed.
        """
        busy = max(0.0, self.busy_until - self.busy_since)
        made = "captions" if self.settings.task == "caption" else "images"
        streams = sum(facts.get("streams", 1) for facts in engines.values())
        model = sum(self.stages[stage] for stage in ("denoise", "decode", "reference")) / max(1, streams)
        return {
            "counts": dict(self.counts),
            f"{made}_per_second": round(self.counts[made] / busy, 3) if busy else None,
            "busy_seconds": round(busy, 3),
            "outside_model": round(1 - model / busy, 4) if busy and model else None,
            "stages_seconds": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            "engines": engines,
            **({"work": dict(self.work)} if self.work else {}),
            **({"mean_group": round(self.work["pass_samples"] / passes, 2)} if (passes := self.work["passes"]) else {}),
            **({"served_by": dict(self.served_by)} if self.served_by else {}),
            **({"cost_usd": round(cost, 6)} if cost else {}),
            **({"possibly_paid_usd": round(unknown, 6)} if round(unknown, 6) else {}),
        }
