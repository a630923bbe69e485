"""The door for Python callers and for the command line: rows in, results out.

import fastgen
settings = fastgen.resolve("t2i", "prompts.jsonl", out="run", gpus="0,1")
for result in fastgen.generate(settings):
    print(result.id, result.paths if isinstance(result, fastgen.Done) else result.message)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from fastgen.data.journal import Journal
from fastgen.folder import JOURNAL
from fastgen.groups import Group
from fastgen.intake import Kept, Known, triage
from fastgen.run import Emit, Run
from fastgen.settings import Settings
from fastgen.types import Bucket, Done, Failed, Request, Result


def generate(settings: Settings, rows: Iterable[dict] | None = None, emit: Emit | None = None) -> Iterator[Result]:
    """Run a task over its rows; yields each result made in this run as soon as it is safe on disk.

    Args:
        settings: from `resolve`.
        rows: rows as dicts, where `settings` names no input file. They are kept as rows.jsonl in the run folder.
        emit: called as emit(event, **facts) for what happens besides results.

    Raises:
        SettingsError: something cannot be honoured; nothing was done.
        EngineError, DiskError: the run cannot go on; what is done is safe, and the same call goes on from there.
    """
    yield from Run(settings, emit or (lambda event, **facts: None), rows).results()


def explain(settings: Settings) -> dict:
    """What a run would do, without a model and without changing the run folder.

    Returns:
        {"rows", "kept", "done", "failed": counts (the last two of earlier runs), "bad": [Failed, ...],
        "buckets": [{"bucket", "requests", "samples", "batch_size", "batches"}, ...]}
    """
    window = Group(settings, 0).window
    counts: Counter[str] = Counter(rows=0, kept=0, done=0, failed=0)
    bad: list[Failed] = []
    plan: dict[Bucket, Counter[str]] = {}

    def draw(ended: bool) -> None:
        while (batch := window.draw(ended)) is not None:
            tally = plan.setdefault(batch.bucket, Counter())
            tally.update(requests=len(batch.requests), samples=batch.samples, batches=1)

    path = Path(settings.out) / JOURNAL
    journal = Journal(path, read_only=True) if path.exists() and not settings.fresh else None
    for item in triage(settings, journal):
        counts["rows"] += 1
        match item:
            case Request():
                window.add(item)
                if window.full:
                    draw(ended=False)
            case Kept():
                counts["kept"] += 1
            case Known(Done()):
                counts["done"] += 1
            case Known(Failed(kind="input")):
                bad.append(item.result)
            case Known():
                counts["failed"] += 1
            case Failed():
                bad.append(item)
    draw(ended=True)
    buckets = [
        {"bucket": str(bucket), **tally, "batch_size": settings.batch_for(bucket.width * bucket.height)}
        for bucket, tally in plan.items()
    ]
    return {**counts, "bad": bad, "buckets": buckets}
