"""Where the rows of a run folder are read: its table if that is up to date, else INPUT and the journal, which a run may
be writing. A source gives the line of any row at any time. It writes nothing into the run folder."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from fastgen.errors import RunFolderError
from fastgen.input.readers.rows import Row, is_on_hub, is_stored, read
from fastgen.output import shards
from fastgen.output.journal import Journal
from fastgen.output.row_spool import SpooledRow
from fastgen.output.run_dir import JOURNAL, RESULTS
from fastgen.output.writers import from_journal
from fastgen.output.writers.tables import Shape, all_spooled, table_line
from fastgen.types import Done, Result


class Source(Protocol):
    """The rows of a run, in input order, as lines of its table."""

    def read(self) -> Iterator[bytes]:
        """All rows, once, before anything else is asked."""

    def line(self, position: int) -> bytes:
        """The row at a position, from 0."""

    def changed(self) -> list[int]:
        """Positions of rows whose line is another one since the last call."""

    def close(self) -> None: ...


def about(run: Path) -> dict[str, Any]:
    """run.json of a run folder, or of its first part if the parts are not merged. Raises RunFolderError."""
    parts = shards.parts(run)
    return parts[0].about if parts and not (run / JOURNAL).exists() else from_journal.about(run)


def choose(run: Path, shape: Shape, said: dict[str, Any]) -> Source:
    """Args: said: run.json. Raises RunFolderError, SettingsError."""
    table, journals = run / RESULTS, _journals(run)
    newest = max((path.stat().st_mtime for path, _ in journals), default=0.0)
    at_work = said.get("state") in ("starting", "running")
    if table.exists() and table.stat().st_mtime >= newest and not at_work:
        return Table(table)
    if journals and (rows := _rows_given(run, said)) is not None:
        return Live(shape, rows, journals, from_journal.only_of(said, shape))
    if table.exists():
        return Table(table)
    if journals:
        return Live(shape, None, journals)
    raise RunFolderError(f"RUN {run}: has no results yet; give the folder of a run")


def _journals(run: Path) -> list[tuple[Path, str]]:
    """The journals of a run, each with the prefix of its paths."""
    if (run / JOURNAL).exists():
        return [(run / JOURNAL, "")]
    found = [(part.path / JOURNAL, f"{os.path.relpath(part.path, run)}/") for part in shards.parts(run)]
    return [(path, prefix) for path, prefix in found if path.exists()]


def _rows_given(run: Path, said: dict[str, Any]) -> Iterable[Row] | None:
    """The rows of INPUT; None if it is no longer there, or on a server."""
    given = str(said.get("input") or "")
    if not given:  # rows from Python are in the run folder
        spools = sorted(run.glob("rows*.jsonl"), key=lambda path: path.stat().st_mtime)
        given = str(spools[-1]) if spools else ""
    if not given or is_on_hub(given) or is_stored(given) or not (Path(given).exists() or "*" in given):
        return None
    rows = read(given, int(said.get("limit") or 0))
    if (named := shards.named(run)) is None:
        return rows
    number, of = named
    return (row for row in rows if (row.number - number) % of == 0)


class Table:
    """A finished table. Args: path: results.jsonl."""

    def __init__(self, path: Path):
        self._file = path.open("rb")
        self._offsets = array("Q", [0])

    def read(self) -> Iterator[bytes]:
        for line in self._file:
            self._offsets.append(self._offsets[-1] + len(line))
            yield line

    def line(self, position: int) -> bytes:
        start, end = self._offsets[position : position + 2]
        return os.pread(self._file.fileno(), end - start, start)

    def changed(self) -> list[int]:
        return []

    def close(self) -> None:
        self._file.close()


class Live:
    """INPUT and the journal.

    Args:
        rows: those of INPUT; None if it is not there: then what the journal knows is all that is shown.
        journals: path of each, and the prefix of the paths in it.
        only: the ids of the rows that the run is about; None: all.
    """

    def __init__(
        self,
        shape: Shape,
        rows: Iterable[Row] | None,
        journals: list[tuple[Path, str]],
        only: frozenset[str] | None = None,
    ):
        self._shape, self._rows, self._only = shape, rows, only
        self._results = _Results(journals)
        self._file = tempfile.TemporaryFile(prefix="fastgen-view-")  # noqa: SIM115
        self._offsets = array("Q", [0])
        self._positions: dict[int, int] = {}
        """hash(id) -> position."""

    def read(self) -> Iterator[bytes]:
        spooled = self._results.rows() if self._rows is None else all_spooled(self._shape, self._rows, self._only)
        for row in spooled:
            record = msgspec.msgpack.encode(row)
            self._file.write(record)
            self._positions[hash(row.id)] = len(self._offsets) - 1
            self._offsets.append(self._offsets[-1] + len(record))
            yield self._line(row)
        self._file.flush()

    def line(self, position: int) -> bytes:
        self._file.flush()
        start, end = self._offsets[position : position + 2]
        return self._line(msgspec.msgpack.decode(os.pread(self._file.fileno(), end - start, start), type=SpooledRow))

    def changed(self) -> list[int]:
        found = (self._positions.get(key) for key in self._results.follow())
        return sorted({position for position in found if position is not None})

    def _line(self, row: SpooledRow) -> bytes:
        return table_line(row, self._shape, self._results, partial=True)[0]

    def close(self) -> None:
        self._file.close()
        self._results.close()


class _Results:
    """The results in one journal, or in those of all parts of a run."""

    def __init__(self, journals: list[tuple[Path, str]]):
        self._journals = [(Journal(path, read_only=True), prefix) for path, prefix in journals]

    def get(self, id: str, content: str) -> Result | None:
        found = None
        for journal, prefix in self._journals:
            result = journal.get(id, content)
            if isinstance(result, Done):
                return replace(result, paths=tuple(prefix + path for path in result.paths)) if prefix else result
            found = found or result
        return found

    def rows(self) -> Iterator[SpooledRow]:
        """The rows that have a result, without their own fields."""
        for journal, _ in self._journals:
            for number, (result, newest) in enumerate(journal.results(), start=1):
                if newest:
                    raw = msgspec.json.encode({"id": result.id})
                    yield SpooledRow(number, raw, result.id, result.content, False, True)

    def follow(self) -> list[int]:
        return [key for journal, _ in self._journals for key in journal.follow()]

    def close(self) -> None:
        for journal, _ in self._journals:
            journal.close()
