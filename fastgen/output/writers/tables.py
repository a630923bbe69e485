"""The user's rows + the journal -> results.jsonl and failures.jsonl, in input order, each whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import asdict

from fastgen.config.settings import Settings
from fastgen.errors import FastgenError
from fastgen.input.readers import rows
from fastgen.input.requests import Intake, filled
from fastgen.output import artifacts
from fastgen.output.journal import Journal
from fastgen.output.run_dir import FAILURES, RESULTS
from fastgen.types import Done, Failed, ImageParams, Result


def write_tables(settings: Settings, journal: Journal) -> None:
    """One line a row in results.jsonl; the failed ones in failures.jsonl too, where they are valid input.

    Raises:
        DiskError: the disk takes no more; earlier tables are then as they were.
    """
    out = Path(settings.out)
    with ExitStack() as stack:
        failures = stack.enter_context(artifacts.atomic(out, FAILURES))
        results = stack.enter_context(artifacts.atomic(out, RESULTS))
        for line, failed in _lines(settings, journal):
            results.write(line + b"\n")
            if failed:
                failures.write(line + b"\n")
    artifacts.sync_folder(out)


def _lines(settings: Settings, journal: Journal) -> Iterator[tuple[bytes, bool]]:
    intake = Intake(settings)
    key = settings.output_key
    for row in _read(settings):
        identity = intake.identify(row)
        result = journal.get(identity.id, identity.content)
        if identity.error is None and filled(identity.fields.get(key)):
            about = identity.fields.get("fastgen", {"id": identity.id, "status": "kept"})
            yield rows.splice(row, {"fastgen": about}), False
        elif isinstance(result, Done):
            yield rows.splice(row, {key: output(result, settings), "fastgen": describe(result)}), False
        elif isinstance(result, Failed):
            added = {"fastgen": describe(result)}
            if not identity.fields and identity.error is not None:
                added["line"] = row.raw.decode("utf-8", "replace")
            yield rows.splice(row, added, dropped=(key,)), True
        else:
            raise FastgenError(
                f"row {row.number} has no result in the journal; was INPUT changed during the run? Run again"
            )


def _read(settings: Settings) -> Iterator[rows.Row]:
    try:
        yield from rows.read(Path(settings.input), settings.limit)
    except OSError as error:  # not to be taken for an error of the tables' own disk
        raise FastgenError(
            f"INPUT {settings.input}: cannot be read any more: {error.strerror}; bring it back, run again"
        ) from None


def output(result: Done, settings: Settings) -> object:
    """What stands in the row's output field: paths, a text, or under a schema its JSON."""
    if settings.task != "caption":
        return result.paths
    return json.loads(result.text) if settings.text.schema else result.text


def describe(result: Result) -> dict:
    """The `fastgen` object of a row."""
    about = {"id": result.id, "status": "done", "backend": result.backend, "model": result.model}
    cost = {"cost_usd": result.cost} if result.cost else {}
    if isinstance(result, Done):
        how = asdict(result.params)
        if isinstance(result.params, ImageParams):
            how.pop("n")
            if not how["width"]:
                del how["width"], how["height"]
            if result.backend in ("openai", "gemini"):  # which know none of them
                del how["steps"], how["guidance"], how["seed"]
        about |= (
            {k: v for k, v in how.items() if v != ""} | {"seconds": result.seconds, "attempts": result.attempts} | cost
        )
        about |= {"cache": result.cache} if result.cache else {}
        about |= {"usage": result.usage} if result.usage else {}
        return about | ({"warnings": result.warnings} if result.warnings else {})
    error = {"kind": result.kind, "message": result.message, **({"field": result.field} if result.field else {})}
    return about | {"status": "failed", "attempts": result.attempts, **cost, "error": error}
