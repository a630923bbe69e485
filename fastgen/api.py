"""The interface for Python callers and for the command line: rows in, results out.

import fastgen
settings = fastgen.resolve("t2i", "prompts.jsonl", out="run", gpus="0,1")
for result in fastgen.generate(settings):
    print(result.id, result.paths if isinstance(result, fastgen.Done) else result.message)

For many small runs, a `Session` keeps the engines open in between.
"""

from __future__ import annotations

import json
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from fastgen import providers
from fastgen.config import torch_build
from fastgen.config.settings import Settings
from fastgen.errors import SettingsError
from fastgen.input.embedded_pictures import Store
from fastgen.input.images import UNFETCHED
from fastgen.input.readers.rows import RowReader
from fastgen.input.requests import Prefilled
from fastgen.input.unread_fields import UnreadFields, more_read
from fastgen.output.journal import Journal
from fastgen.output.run_dir import JOURNAL, RUN
from fastgen.scheduler.ctrl_c import results_of
from fastgen.scheduler.routing import Group
from fastgen.scheduler.run import Emit, Run
from fastgen.scheduler.share import Share
from fastgen.scheduler.triage import Skipped, triage
from fastgen.types import Bucket, Done, Failed, Request, Result
from fastgen.workers.idle_pool import IdlePool


def generate(settings: Settings, rows: Iterable[dict] | None = None, emit: Emit | None = None) -> Iterator[Result]:
    """Run a task over its rows. Yields each result made in this run as soon as it is safe on disk; rows that are
    already done yield nothing.

    Args:
        settings: from `resolve`.
        rows: rows as dicts, if `settings` has no input file. They are written to rows.jsonl in the run folder.
        emit: called as emit(event, **facts) for events other than results.

    Raises:
        SettingsError: something cannot be honoured; nothing was done.
        EngineError, DiskError: the run cannot continue; what is done is safe, and the same call continues from there.
        KeyboardInterrupt: after the first Ctrl-C, once the batches in progress are done and their results are safe, 20
            s later at most. A second Ctrl-C raises it at once.
    """
    yield from results_of(Run(settings, emit or _ignore, rows), quiet=emit is not None)


class Session:
    """Runs one after the other, with engines (or a vLLM server) that stay open from one to the next.

    with fastgen.Session() as session:
        for number, rows in enumerate(parts):
            settings = fastgen.resolve("t2i", out=f"part-{number}", gpus="0,1")
            results = list(session.generate(settings, rows))

    A run reuses an engine if its model, devices and everything else that an engine is opened with are the same; folder,
    sizes, steps, seeds, prompts and so on may differ. A run that needs another engine on a device stops the idle one
    there, whichever session it belongs to, and says so. Engines also end with `close`, with the session, and with this
    process, for whatever reason it ends. A run that was interrupted or could not continue leaves no engine open.

    Args:
        place: where engines run, a name in `fastgen.workers.registry.PLACES`; "": where the settings say.
    """

    def __init__(self, place: str = "") -> None:
        self._place = place
        self._idle_pool = IdlePool()
        self._end = weakref.finalize(self, self._idle_pool.close)

    def generate(
        self, settings: Settings, rows: Iterable[dict] | None = None, emit: Emit | None = None
    ) -> Iterator[Result]:
        """Like `fastgen.generate`. Raises SettingsError after `close`."""
        if not self._end.alive:
            raise SettingsError("this session is closed; open another one")
        run = Run(settings, emit or _ignore, rows, self._idle_pool, self._place)
        yield from results_of(run, quiet=emit is not None)

    def close(self) -> None:
        """End the idle engines; an engine at work ends with its run."""
        self._end()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _ignore(event: str, **facts: object) -> None: ...


def explain(settings: Settings) -> dict:
    """What a run would do. Loads no model and does not change the run folder.

    Returns:
        {"rows", "kept", "done", "failed": counts (the last two of earlier runs), "bad": [Failed, ...],
        "buckets": [{"bucket", "requests", "samples", "batch_size", "batches"}, ...],
        "warnings": why a run would be refused or rows of earlier runs made again,
        "unread": which fields of the rows are not read,
        "usd": the most that rows still to be run may cost at the first backend; None if its prices are not known, or if
        nothing is paid,
        "seconds": how long they take at the rate of the last run in this folder; None if there was none}
    """
    if not isinstance(settings, Settings):
        raise SettingsError(f"settings: must be what resolve() returns, not {type(settings).__name__}")
    if not settings.run.input:
        raise SettingsError("no rows: explain() needs the file that resolve() gets as `input`")
    window = Group(settings, 0).window
    usd, to_make = 0.0, 0
    counts: Counter[str] = Counter(rows=0, kept=0, done=0, failed=0)
    bad, plan = list[Failed](), dict[Bucket, Counter[str]]()

    def draw(ended: bool) -> None:
        while (batch := window.draw(ended)) is not None:
            tally = plan.setdefault(batch.bucket, Counter())
            tally.update(requests=len(batch.requests), samples=batch.samples, batches=1)

    path = Path(settings.run.out) / JOURNAL
    journal = Journal(path, read_only=True) if path.exists() and not settings.run.fresh else None
    warnings = [reason] if (reason := torch_build.refuse_run(settings)) else []
    unread = UnreadFields(settings.task, lambda message: None, settings.rows.strict, more_read(settings))
    with TemporaryDirectory(prefix="fastgen-plan-") as scratch:  # for images that are inside the rows
        reader = RowReader(settings.run.input, settings.run.limit, Store(scratch), unread.say_read)
        share = Share(settings, journal) if settings.run.shard else None
        for item in triage(settings, reader, journal, None, warnings.append, unread, scratch, share=share):
            counts["rows"] += 1
            match item:
                case Request():
                    usd += providers.estimate(settings, item)
                    to_make += item.samples
                    window.add(item)
                    if window.full:
                        draw(ended=False)
                case Prefilled():
                    counts["kept"] += 1
                case Skipped(Done()):
                    counts["done"] += 1
                case Skipped(Failed(kind="input") as failed):
                    bad.append(failed)
                case Skipped():
                    counts["failed"] += 1
                case Failed() if UNFETCHED in item.message:
                    counts["on_servers"] += 1
                case Failed():
                    bad.append(item)
    draw(ended=True)
    priced = settings.backend.provider and providers.price(settings) is not None
    more = {"usd": round(usd, 6) if priced else None, "seconds": _seconds(settings, to_make)}
    about = {"buckets": _buckets(settings, plan), "warnings": warnings, "unread": unread.notes}
    return {**counts, "bad": bad, **about, **more}


def _buckets(settings: Settings, plan: dict[Bucket, Counter[str]]) -> list[dict]:
    return [
        {"bucket": str(bucket), **tally, "batch_size": settings.batch_for(bucket.width * bucket.height)}
        for bucket, tally in plan.items()
    ]


def _seconds(settings: Settings, to_make: int) -> float | None:
    """How long it takes to make so many images or texts, by the last run in this folder."""
    made = "captions" if settings.task == "caption" else "images"
    try:
        rate = json.loads((Path(settings.run.out) / RUN).read_text("utf-8")).get(f"{made}_per_second")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return round(to_make / rate, 1) if isinstance(rate, int | float) and rate > 0 else None
