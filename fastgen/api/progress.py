"""A bar for Python callers: on stderr where that is a terminal, and in notebooks. Does not know how rows are run."""

from __future__ import annotations

from collections.abc import Iterator

from fastgen.scheduler.run import Run
from fastgen.types import Result


def shown(run: Run, results: Iterator[Result], visible: bool) -> Iterator[Result]:
    """The results, with a bar that counts rows if it is to be visible."""
    if not visible:
        yield from results
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console()
    if not console.is_jupyter:
        console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        rows = bar.add_task(run.settings.task, total=None, failed="")
        for number, result in enumerate(results, 1):
            failed = run.counts["failed"]
            total = max(run.expected_rows, number)
            bar.update(rows, completed=number, total=total, failed=f"{failed} failed" if failed else "")
            yield result
        bar.update(rows, total=run.counts["rows"])
