"""Compares every file of a run folder with its journal: size, hash, and whether it can be decoded. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec

from fastgen.errors import RunFolderError
from fastgen.output import intact, previous
from fastgen.output.journal import Journal
from fastgen.output.mirror.place import Place
from fastgen.types import Done, FileStamp

WINDOW = 256
"""Files that are checked at the same time."""


class Finding(msgspec.Struct, frozen=True):
    """One problem."""

    id: str
    """The id of the row; "" if unknown."""
    path: str
    """The file, relative to the run folder."""
    problem: str


class Check:
    """Iterate over it once; then its counts are right.

    Args:
        out: a run folder, or one that --fresh moved aside.
        place: where its images are, if that is object storage.

    Raises:
        RunFolderError: there is no journal.
    """

    def __init__(self, out: Path, place: Place | None = None):
        self.out = out
        self._place = place
        self.rows = self.files = self.without_hash = self.wrong = 0
        """Counts: results that are done; their files; files from a version without hashes; findings."""
        try:
            self._journal = Journal(out / previous.JOURNAL, read_only=True)
        except OSError as error:
            raise RunFolderError(
                f"RUN {out}: {previous.JOURNAL} cannot be read: {error.strerror}; give the folder of a run"
            ) from None

    def __iter__(self) -> Iterator[Finding]:
        """The findings, in the order of the journal."""
        for finding in self._findings():
            self.wrong += 1
            yield finding

    def _findings(self) -> Iterator[Finding]:
        if self._journal.damaged:
            lines = "1 damaged line" if self._journal.damaged == 1 else f"{self._journal.damaged} damaged lines"
            yield Finding("", previous.JOURNAL, f"has {lines}; the rows will run again")
        for table in previous.tables(self.out):
            yield from _unreadable_lines(table)
        files = self._files()
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            while window := list(islice(files, WINDOW)):
                problems = pool.map(lambda file: self._fault(file[1], file[2]), window)
                for (id, path, _), problem in zip(window, problems, strict=True):
                    if problem:
                        yield Finding(id, path, problem)

    def _fault(self, path: str, written: FileStamp | None) -> str:
        """What is wrong with an image, "" if nothing. Raises StorageError."""
        if self._place is None:
            return intact.fault(self.out / path, written)
        with NamedTemporaryFile(dir=self.out, suffix=Path(path).suffix) as copy:
            try:
                self._place.get(path, Path(copy.name))
            except FileNotFoundError:
                return "is missing"
            return intact.fault(Path(copy.name), written)

    def _files(self) -> Iterator[tuple[str, str, FileStamp | None]]:
        """(id, path, stamp) of every file that counts: those of the newest results, and of earlier results that a table
        names."""
        named: set[int] | None = None
        for result, newest in self._journal.results():
            if not isinstance(result, Done):
                continue
            if not newest:
                named = _named(self.out) if named is None else named
                if not any(hash(path) in named for path in result.paths):
                    continue
            self.rows += 1
            for number, path in enumerate(result.paths):
                self.files += 1
                written = result.files[number] if number < len(result.files) else None
                self.without_hash += written is None
                yield result.id, path, written

    def close(self) -> None:
        self._journal.close()


def _unreadable_lines(table: Path) -> Iterator[Finding]:
    for number, line in _lines(table):
        if line is None:
            yield Finding("", table.name, f"has a line that is not a row: line {number}")


def _named(out: Path) -> set[int]:
    """Hashes of all paths that the tables name."""
    named: set[int] = set()
    for table in previous.tables(out):
        for _, row in _lines(table):
            for value in (row or {}).values():
                for path in value if isinstance(value, list) else ():
                    if isinstance(path, str):
                        named.add(hash(path))
    return named


def _lines(table: Path) -> Iterator[tuple[int, dict | None]]:
    """(number, row) of every line; None if it is not a JSON object."""
    with table.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                row = _lenient(line)
            yield number, row if isinstance(row, dict) else None


def _lenient(line: bytes) -> object:
    """A table contains a user's NaN as it was in the row."""
    import json

    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
