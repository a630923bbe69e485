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

from fastgen.data import rows as row_files
from fastgen.intake import Intake, Kept
from fastgen.plan import Window
from fastgen.run import Emit, Run
from fastgen.settings import Settings
from fastgen.types import Failed, Result


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
    """What a run would do, without a model and without touching the run folder: counts, bad rows, buckets, batches.

    Returns:
        {"rows", "kept", "bad": [Failed, ...], "buckets": [{"bucket", "requests", "samples", "batch_size", "batches"}]}
    """
    intake = Intake(settings)
    window = Window(settings.batch_for, len(settings.devices))
    counts: Counter[str] = Counter()
    bad: list[Failed] = []
    plan: dict[object, Counter[str]] = {}

    def draw(ended: bool) -> None:
        while (batch := window.draw(ended)) is not None:
            tally = plan.setdefault(batch.bucket, Counter())
            tally.update(requests=len(batch.requests), samples=batch.samples, batches=1)

    for row in row_files.read(Path(settings.input), settings.limit):
        counts["rows"] += 1
        item = intake.read(row, intake.identify(row))
        if isinstance(item, Kept):
            counts["kept"] += 1
        elif isinstance(item, Failed):
            bad.append(item)
        else:
            window.add(item)
            if window.full:
                draw(ended=False)
    draw(ended=True)
    return {
        "rows": counts["rows"],
        "kept": counts["kept"],
        "bad": bad,
        "buckets": [
            {"bucket": str(bucket), **tally, "batch_size": settings.batch_for(bucket.width * bucket.height)}
            for bucket, tally in plan.items()
        ],
    }
