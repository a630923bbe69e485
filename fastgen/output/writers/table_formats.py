"""The table of a run in other formats, beside results.jsonl: results.parquet, results.csv. Paths stay paths."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastgen.errors import InputError, SettingsError
from fastgen.input.readers.rows import read
from fastgen.output import artifacts
from fastgen.output.previous import RESULTS

JSONL = "jsonl"


def write(out: Path, format: str) -> Path:
    """Write the table of a run folder, which has results.jsonl, in a format of `FORMATS`. Returns its path.

    Raises:
        DiskError: the disk refuses writes.
    """
    if format == JSONL:
        return out / RESULTS
    name = f"results.{format}"
    (out / artifacts.PARTIAL).mkdir(exist_ok=True)
    FORMATS[format](out, name)
    artifacts.sync_folder(out)
    return out / name


def check(flag: str, format: str) -> str:
    """The format. Raises SettingsError."""
    if format not in FORMATS:
        raise SettingsError(f"{flag} {format}: one of {', '.join(FORMATS)}")
    return format


def _rows(out: Path) -> Iterator[dict]:
    for row in read(out / RESULTS):
        try:
            yield row.fields()
        except InputError:  # half-written by hand
            continue


def _parquet(out: Path, name: str) -> None:
    from pyarrow.parquet import ParquetWriter

    from fastgen.output.writers import columns_of

    schema = columns_of.schema(_rows(out))
    with artifacts.atomic(out, name) as file, ParquetWriter(file, schema, compression="zstd") as table:
        for batch in columns_of.batches(_rows(out), schema):
            table.write_batch(batch)


def _csv(out: Path, name: str) -> None:
    """Columns in the order in which they first appear, `fastgen` as `fastgen.status` and so on; lists and objects in
    JSON."""
    names = dict.fromkeys(name for row in _rows(out) for name in _flat(row))
    with artifacts.atomic(out, name) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="replace", newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(names)
        for row in _rows(out):
            cells = _flat(row)
            table.writerow([_cell(cells.get(name)) for name in names])
        text.flush()
        text.detach()


def _flat(row: dict) -> dict[str, Any]:
    about = row.get("fastgen")
    if not isinstance(about, dict):
        return row
    own = {name: value for name, value in row.items() if name != "fastgen"}
    return own | {f"fastgen.{name}": value for name, value in about.items()}


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value


FORMATS: dict[str, Callable[[Path, str], None]] = {JSONL: lambda out, name: None, "parquet": _parquet, "csv": _csv}
"""Format -> what writes it."""
