"""The user's rows + the journal -> results.jsonl and failures.jsonl, in input order. Each table is written completely
or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from fastgen.config import backends
from fastgen.config.settings import Settings
from fastgen.errors import FastgenError
from fastgen.input.readers.rows import Row, splice
from fastgen.output import artifacts
from fastgen.output.journal import Journal
from fastgen.output.row_spool import SpooledRow
from fastgen.output.run_dir import FAILURES, RESULTS
from fastgen.types import Done, ImageParams, Result


def write_tables(settings: Settings, rows: Iterable[SpooledRow], journal: Journal) -> None:
    """Write one line per row to results.jsonl, and failed rows also to failures.jsonl, which is valid input.

    Args:
        rows: all rows of the run, in input order; each has a result in the journal unless it was prefilled.

    Raises:
        DiskError: the disk refuses writes; earlier tables stay unchanged.
    """
    out = Path(settings.run.out)
    with ExitStack() as stack:
        failures = stack.enter_context(artifacts.atomic(out, FAILURES))
        results = stack.enter_context(artifacts.atomic(out, RESULTS))
        for row in rows:
            line, failed = _line(row, settings, journal)
            results.write(line + b"\n")
            if failed:
                failures.write(line + b"\n")
    artifacts.sync_folder(out)


def _line(spooled: SpooledRow, settings: Settings, journal: Journal) -> tuple[bytes, bool]:
    """The row's line in the table, and whether it failed."""
    key, row = settings.rows.output_key, Row(spooled.number, spooled.raw)
    if spooled.prefilled:
        about = row.fields().get("fastgen", {"id": spooled.id, "status": "kept"})
        return splice(row, {"fastgen": about}), False
    result = journal.get(spooled.id, spooled.content)
    if isinstance(result, Done):
        return splice(row, {key: output(result, settings), "fastgen": describe(result)}), False
    if result is None:
        raise FastgenError(f"row {row.number} has no result in the journal. Run the same command again")
    added: dict[str, Any] = {"fastgen": describe(result)}
    if not spooled.readable:
        added["line"] = row.raw.decode("utf-8", "replace")
    return splice(row, added, dropped=(key,)), True


def output(result: Done, settings: Settings) -> object:
    """The value of the row's output field: paths, a text, or with a schema its JSON."""
    if settings.task != "caption":
        return result.paths
    return json.loads(result.text) if settings.text.schema else result.text


def describe(result: Result) -> dict:
    """The `fastgen` object of a row."""
    about: dict[str, Any] = {"id": result.id, "status": "done", "backend": result.backend, "model": result.model}
    cost = {"cost_usd": result.cost} if result.cost else {}
    if isinstance(result, Done):
        how = asdict(result.params)
        if isinstance(result.params, ImageParams):
            how.pop("n")
            if not how["width"]:
                del how["width"], how["height"]
            if (spec := backends.get(result.backend)) and spec.service:  # a service does not have these
                del how["steps"], how["guidance"], how["seed"]
        about |= (
            {k: v for k, v in how.items() if v != ""} | {"seconds": result.seconds, "attempts": result.attempts} | cost
        )
        about |= {"cache": result.cache} if result.cache else {}
        about |= {"usage": result.usage} if result.usage else {}
        return about | ({"warnings": result.warnings} if result.warnings else {})
    error = {"kind": result.kind, "message": result.message, **({"field": result.field} if result.field else {})}
    return about | {"status": "failed", "attempts": result.attempts, **cost, "error": error}
