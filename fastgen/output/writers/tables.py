"""The user's rows + the journal -> results.jsonl and failures.jsonl, in input order. Each table is written completely
or not at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec.structs import asdict, replace

from fastgen.config import backends
from fastgen.config.settings import Rows, Settings
from fastgen.errors import FastgenError
from fastgen.input.columns import Columns, asks_text
from fastgen.input.identities import Identities, Identity, filled
from fastgen.input.readers.rows import Row, splice
from fastgen.output import artifacts
from fastgen.output.journal import Journal
from fastgen.output.row_spool import SpooledRow
from fastgen.output.run_dir import FAILURES, RESULTS
from fastgen.types import Done, ImageParams, Result, Task


class Shape(msgspec.Struct, frozen=True):
    """What tables need to know of a run."""

    out: Path
    task: Task
    rows: Rows
    """Which columns were read."""
    is_json: bool = False
    """Whether captions are JSON, under a schema."""

    @classmethod
    def of(cls, settings: Settings) -> Shape:
        return cls(Path(settings.run.out), settings.task, settings.rows, bool(settings.text.schema))

    @classmethod
    def of_run(cls, out: Path, said: dict) -> Shape:
        """Args: said: the settings in run.json."""
        keys = {name: said.get(name, "") for name in ("prompt", "prompt_key", "image_key", "mask_key", "id_key")}
        asks = asks_text(said["task"], keys["prompt"], keys["prompt_key"])
        rows = Rows(str(said["output_key"]), str(said.get("image_root") or ""), 0, asks_text=asks, **keys)
        return cls(out, said["task"], rows, bool(said.get("schema")))

    @property
    def output_key(self) -> str:
        return self.rows.output_key


def write_tables(settings: Settings, rows: Iterable[SpooledRow], journal: Journal) -> None:
    """Write one line per row to results.jsonl, and failed rows also to failures.jsonl, which is valid input.

    Args:
        rows: all rows of the run, in input order; each has a result in the journal unless it was prefilled.

    Raises:
        DiskError: the disk refuses writes; earlier tables stay unchanged.
    """
    _write(Shape.of(settings), rows, journal, partial=False)


def write_partial_tables(
    shape: Shape, rows: Iterable[Row], journal: Journal, only: frozenset[str] | None = None
) -> Counter[str]:
    """The tables of a run that is not finished: rows without a result have the status "pending", and no output field.

    Args:
        rows: all rows of INPUT, in order, as they are read.
        only: the ids of those that the run is about; None: all.

    Returns:
        rows by their status.

    Raises:
        DiskError, SettingsError.
    """
    return _write(shape, all_spooled(shape, rows, only), journal, partial=True)


def all_spooled(shape: Shape, rows: Iterable[Row], only: frozenset[str] | None = None) -> Iterator[SpooledRow]:
    """Rows as they are read, in input order, each with its identity; `only` those with these ids, if given."""
    identities = Identities(shape.output_key, shape.rows.id_key)
    for row in rows:
        identity = identities.identify(row)
        if only is None or identity.id in only:
            yield spooled(row, identity, shape.output_key)


def spooled(row: Row, identity: Identity, output_key: str) -> SpooledRow:
    """The row as tables need it. `identity.fields` are under whatever names."""
    prefilled = identity.error is None and filled(identity.fields.get(output_key))
    readable = bool(identity.fields) or identity.error is None
    return SpooledRow(row.number, row.raw, identity.id, identity.content, prefilled, readable)


def _write(shape: Shape, rows: Iterable[SpooledRow], journal: Journal, partial: bool) -> Counter[str]:
    counts = Counter[str]()
    with ExitStack() as stack:
        failures = stack.enter_context(artifacts.atomic(shape.out, FAILURES))
        results = stack.enter_context(artifacts.atomic(shape.out, RESULTS))
        for row in rows:
            line, status = table_line(row, shape, journal, partial)
            counts[status] += 1
            results.write(line + b"\n")
            if status == "failed":
                failures.write(line + b"\n")
    artifacts.sync_folder(shape.out)
    return counts


class Results(Protocol):
    """Where results are looked up: a journal, or several."""

    def get(self, id: str, content: str) -> Result | None: ...


def table_line(spooled: SpooledRow, shape: Shape, journal: Results, partial: bool) -> tuple[bytes, str]:
    """The row's line in the table, and its status. `partial`: it may have no result yet."""
    key, row = shape.output_key, Row(spooled.number, spooled.raw)
    if spooled.prefilled:
        about = row.fields().get("fastgen", {"id": spooled.id, "status": "kept"})
        return splice(row, {"fastgen": about}), "kept"
    result = journal.get(spooled.id, spooled.content)
    if isinstance(result, Done):
        about = describe(result) | _asked(row, shape)
        return splice(row, {key: _output(result, shape), "fastgen": about}), "done"
    dropped = () if shape.rows.output_is_input else (key,)
    if result is None and partial:
        return splice(row, {"fastgen": {"id": spooled.id, "status": "pending"}}, dropped=dropped), "pending"
    if result is None:
        raise FastgenError(f"row {row.number} has no result in the journal. Run the same command again")
    added: dict[str, Any] = {"fastgen": describe(result)}
    if not spooled.readable:
        added["line"] = row.raw.decode("utf-8", "replace")
    return splice(row, added, dropped=dropped), "failed"


def _asked(row: Row, shape: Shape) -> dict[str, str]:
    """`prompt`, if the row alone does not say later which one was used: that of --prompt, or a column that counted
    because of what an earlier run had written into the row."""
    if not (shape.rows.prompt or b'"fastgen"' in row.raw) or shape.task == "caption":
        return {}
    columns, fields = Columns(shape.rows, shape.task), row.fields()
    used = columns.read(fields)[0].get("prompt")
    without = {name: value for name, value in fields.items() if name != "fastgen"}
    later = Columns(replace(shape.rows, prompt=""), shape.task).read(without)[0].get("prompt")
    return {"prompt": used} if isinstance(used, str) and used != later else {}


def output(result: Done, settings: Settings) -> object:
    """The value of the row's output field: paths, a text, or with a schema its JSON."""
    return _output(result, Shape.of(settings))


def _output(result: Done, shape: Shape) -> object:
    if shape.task != "caption":
        return result.paths
    return json.loads(result.text) if shape.is_json else result.text


@lru_cache(64)
def _is_service(backend: str) -> bool:
    return bool((spec := backends.get(backend)) and spec.service)


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
            if _is_service(result.backend):  # it does not have these
                for name in {"steps", "guidance", "seed"} - set(result.sent):
                    del how[name]
        about |= (
            {k: v for k, v in how.items() if v not in ("", None)}
            | {"seconds": result.seconds, "attempts": result.attempts}
            | cost
        )
        about |= {"cache": result.cache} if result.cache else {}
        about |= {"progressive": result.progressive} if result.progressive else {}
        about |= {"usage": result.usage} if result.usage else {}
        for name in ("reasoning", "removed", "not_sent"):
            about |= {name: said} if (said := getattr(result, name)) else {}
        return about | ({"warnings": result.warnings} if result.warnings else {})
    error = {"kind": result.kind, "message": result.message, **({"field": result.field} if result.field else {})}
    error |= {"answer": result.answer} if result.answer else {}
    return about | {"status": "failed", "attempts": result.attempts, **cost, "error": error}
