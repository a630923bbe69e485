"""`fastgen status` and `fastgen merge`: the parts of a run that were started with --shard, and its batches."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from fastgen.cli.check import OnDisk, Run


def status(run: Run) -> None:
    """Say how far each part of a run is (--shard), and which batches are at a service (--batch-api)."""
    from fastgen.errors import FastgenError
    from fastgen.input import storage
    from fastgen.output import parcels, shards

    if storage.is_address(run):
        _status_there(run)
        return
    batches = parcels.at_service(run)
    for batch in batches:
        print(f"batch {batch.id or batch.name}: {batch.requests} requests, {batch.done} done {batch.trouble}".rstrip())
    try:
        found = shards.status(run)
    except FastgenError as error:
        if batches:
            return
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    for one in found:
        counts = ", ".join(f"{one.counts[name]} {name}" for name in ("done", "failed") if one.counts[name])
        name = f"{one.part.number}/{one.part.of}"
        nothing = "no rows of its own" if one.state == "finished" else "no rows yet"
        print(f"part {name}: {one.state}, {counts or nothing} (said at {one.written})")
        if held := parcels.at_service(one.part.path):
            print(f"part {name}: {parcels.described(held)}")


def _status_there(run: Path) -> None:
    """How far a run in object storage is."""
    from fastgen.errors import FastgenError
    from fastgen.output.mirror.pulled import status

    try:
        print(status(run))
    except FastgenError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None


def merge(run: OnDisk) -> None:
    """Make one table and one journal of all parts of a run. The last part to finish does it by itself.

    Exit code 0 if every row is done, 3 if some failed or have no result yet.
    """
    from fastgen.errors import FastgenError
    from fastgen.output import shards

    try:
        counts = shards.merge(run)
    except FastgenError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    said = ", ".join(f"{counts[status]} {status}" for status in ("done", "failed", "kept", "pending") if counts[status])
    print(f"{run / 'results.jsonl'}: {said or 'no rows'}")
    raise typer.Exit(3 if counts["failed"] or counts["pending"] else 0)
