"""Whether the tables of a run folder are those that would be written again: they follow from the rows, the journal and
a few settings, so a finished run that is started again need not write them. Does not write tables."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import msgspec

import fastgen
from fastgen.output.journal import Journal
from fastgen.output.row_spool import RowSpool
from fastgen.output.run_dir import FAILURES, RESULTS
from fastgen.output.writers.tables import Shape

_encode = msgspec.msgpack.Encoder(enc_hook=str).encode


def source(shape: Shape, rows: RowSpool, journal: Journal, format: str) -> str:
    """A hash of everything that the tables are made from."""
    parts = (fastgen.__version__, shape, rows.digest, journal.size, journal.damaged, format)
    return blake2b(_encode(parts), digest_size=16).hexdigest()


def stamp(shape: Shape, made_from: str, format: str) -> dict:
    """What run.json keeps about tables that were just written."""
    return {"from": made_from, "files": _files(shape.out, format)}


def stand(shape: Shape, made_from: str, format: str, kept: object) -> bool:
    """Whether nothing has changed since `kept` was written: neither what tables are made from, nor their files."""
    return isinstance(kept, dict) and kept == stamp(shape, made_from, format) and None not in kept["files"]


def _files(out: Path, format: str) -> list[list[int] | None]:
    """Size in bytes and time of change in ns of each table; None for one that is missing."""
    found: list[list[int] | None] = []
    for name in dict.fromkeys((RESULTS, FAILURES, f"results.{format}")):
        try:
            about = (out / name).stat()
            found.append([about.st_size, about.st_mtime_ns])
        except OSError:
            found.append(None)
    return found
