"""`fastgen table` and `fastgen export`: what a run has made, as a table or as a data set, at any time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fastgen.cli import complete
from fastgen.cli.check import OnDisk, Run
from fastgen.cli.flags import path


def table(
    run: Run,
    to: Annotated[
        str, typer.Option(autocompletion=complete.tables, metavar="FORMAT", help="jsonl, parquet or csv.")
    ] = "jsonl",
) -> None:
    """Write the table of a run from its journal, whether it is finished, interrupted or still at work.

    Rows without a result have the status "pending".
    """
    from fastgen.errors import FastgenError
    from fastgen.input import storage
    from fastgen.output.mirror.pulled import opened, send
    from fastgen.output.previous import FAILURES, RESULTS
    from fastgen.output.writers import from_journal, table_formats

    try:
        table_formats.check("--to", to)
        with opened(run) as (folder, place):
            counts = from_journal.make_tables(folder)
            made = table_formats.write(folder, to)
            if place is not None:
                send(place, folder, list(dict.fromkeys((RESULTS, FAILURES, made.name))))
    except FastgenError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    said = ", ".join(f"{counts[status]} {status}" for status in ("done", "failed", "kept", "pending") if counts[status])
    where = f"{storage.address(run)}/{made.name}" if storage.is_address(run) else made
    print(f"{where}: {said or 'no rows'}")


def export(
    run: OnDisk,
    to: Annotated[
        str,
        typer.Option(autocompletion=complete.tables, metavar="FORMAT", help="parquet, webdataset, imagefolder or hf."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", parser=path, metavar="<path>", help="Folder.  [default: beside the run folder]"),
    ] = None,
    keep_failed: Annotated[bool, typer.Option("--keep-failed", help="Rows without a result are records, too.")] = False,
) -> None:
    """Write the results of a run as a data set: one record per picture, with its prompt and your columns.

    parquet: pictures inside; hf: the same, for load_dataset; imagefolder: pictures and metadata.jsonl; webdataset: tar
    shards. Rows that failed are left out.
    """
    from fastgen.cli.reporter import plural
    from fastgen.errors import FastgenError
    from fastgen.output.export import export as write

    folder = out or run.absolute().with_name(f"{run.absolute().name}-{to}")
    try:
        count = write(run, to, folder.expanduser(), keep_failed)
    except FastgenError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    print(f"{folder}: {plural(count, 'shard' if to == 'webdataset' else 'record')}")
