"""What a run would do, for `explain` and --dry-run. Loads no model and changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from fastgen import providers
from fastgen.config import torch_build
from fastgen.config.settings import Settings
from fastgen.errors import SettingsError
from fastgen.input.embedded_pictures import Store
from fastgen.input.images import UNFETCHED
from fastgen.input.picked import Picked
from fastgen.input.readers.rows import RowReader
from fastgen.input.requests import Prefilled
from fastgen.input.unread_fields import UnreadFields, more_read
from fastgen.output.journal import Journal
from fastgen.output.mirror.listing import Trusted
from fastgen.output.run_dir import JOURNAL, RUN
from fastgen.scheduler.routing import Group
from fastgen.scheduler.rows_in import no_rows
from fastgen.scheduler.share import Share
from fastgen.scheduler.triage import Skipped, triage
from fastgen.types import Bucket, Done, Failed, Request


def plan_of(settings: Settings) -> dict:
    """The plan that `explain` describes. Raises SettingsError."""
    if not isinstance(settings, Settings):
        raise SettingsError(f"settings: must be what resolve() returns, not {type(settings).__name__}")
    if not settings.run.input:
        raise SettingsError("no rows: explain() needs the file that resolve() gets as `input`")
    window = Group(settings, 0).window
    usd, work, to_make = 0.0, 0.0, 0
    counts: Counter[str] = Counter(rows=0, kept=0, done=0, failed=0)
    bad, plan = list[Failed](), dict[Bucket, Counter[str]]()

    def draw(ended: bool) -> None:
        while (batch := window.draw(ended)) is not None:
            tally = plan.setdefault(batch.bucket, Counter())
            tally.update(requests=len(batch.requests), samples=batch.samples, batches=1)

    path = Path(settings.run.out) / JOURNAL
    journal = Journal(path, read_only=True) if path.exists() and not settings.run.fresh else None
    warnings = [reason] if (reason := torch_build.refuse_run(settings)) else []
    if settings.run.store and journal is None and not settings.run.fresh:
        warnings.append(f"{settings.run.store}: a plan does not ask what is there already, so it has all rows")
    unread = UnreadFields(settings.task, lambda message: None, settings.rows.strict, more_read(settings))
    with TemporaryDirectory(prefix="fastgen-plan-") as scratch:  # for images that are inside the rows
        reader = RowReader(settings.run.input, settings.run.limit, Store(scratch), unread.say_read)
        share = Share(settings, journal) if settings.run.shard else None
        picked = Picked.of(settings)
        rows = (settings, reader, journal, None, warnings.append, unread, scratch)
        stored = Trusted() if settings.run.store else None
        for item in triage(*rows, share=share, picked=picked, stored=stored):
            counts["rows"] += 1
            match item:
                case Request():
                    usd += providers.estimate(settings, item)
                    to_make, work = to_make + item.samples, work + item.work
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
    if not counts["rows"] and settings.run.shard is None:
        raise no_rows(settings)
    draw(ended=True)
    priced = settings.backend.provider and providers.price(settings) is not None
    seconds, by = _seconds(settings, to_make, work)
    more = {"usd": round(usd, 6) if priced else None, "seconds": seconds, "seconds_by": by}
    about = {"buckets": _buckets(settings, plan), "warnings": warnings, "unread": unread.notes}
    return {**counts, "bad": bad, **about, **more}


def _buckets(settings: Settings, plan: dict[Bucket, Counter[str]]) -> list[dict]:
    return [
        {"bucket": str(bucket), **tally, "batch_size": settings.batch_for(bucket.width * bucket.height)}
        for bucket, tally in plan.items()
    ]


def _seconds(settings: Settings, to_make: int, work: float) -> tuple[float | None, str]:
    """How long the rows still to be run take, without loading, and whose rate that is; (None, "") if nobody knows.

    Args:
        to_make: images or texts.
        work: pixels times steps of images, summed.
    """
    made = "captions" if settings.task == "caption" else "images"
    try:
        rate = json.loads((Path(settings.run.out) / RUN).read_text("utf-8")).get(f"{made}_per_second")
    except (OSError, ValueError, AttributeError, RecursionError):
        rate = None
    if isinstance(rate, int | float) and rate > 0:
        return round(to_make / rate, 1), "run"
    devices, quality = settings.placement.devices, settings.optimizations.quality
    if settings.task == "caption" or settings.backend.is_remote or not devices:
        return None, ""
    each = getattr(settings.placement.profile.rate, quality)
    at_once = len(devices) if devices[0].gpu else 1  # a CPU has the same cores, however they are divided
    return (round(work / 1e6 / (each * at_once), 1), "profile") if each else (None, "")
