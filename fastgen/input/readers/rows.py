"""The rows of INPUT, whatever its format: a file, several files, a folder, or a data set of the hub; on a disk or in
object storage. Does not know what the fields mean; `formats` says who reads which format."""

from __future__ import annotations

import csv
import glob
import itertools
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from fastgen.errors import InputError, SettingsError, StorageError, quoted
from fastgen.input import storage
from fastgen.input.embedded_pictures import Store
from fastgen.input.readers import formats
from fastgen.input.readers.source import PACKED, Source

SAMPLED = 2000
"""Rows that an estimate reads."""
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, tarfile.TarError, csv.Error)
"""What libraries raise for files that are not what their names say."""
_decode = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row as the user wrote it."""

    number: int
    """The line of its file, or its position among the rows, from 1."""
    raw: bytes
    problem: str = ""
    """What is wrong with the row, if that is known before its JSON is read."""

    def fields(self) -> dict:
        """The row as a dict. Raises InputError if it is not a JSON object."""
        if self.problem:
            raise InputError(self.problem)
        try:
            value = _decode(self.raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            value = _lenient(self.raw, error)
        if not isinstance(value, dict):
            raise InputError(f'a row is a JSON object such as {{"prompt": "..."}}, this one is {self.excerpt()}')
        return value

    def excerpt(self, most: int = 60) -> str:
        text = self.raw[: 4 * most].decode("utf-8", "replace").strip()
        return quoted(text if len(text) <= most else text[:most] + "...")


def _lenient(raw: bytes, first: Exception) -> Any:
    """Python's JSON reader also accepts NaN and integers of any length, so only the field with the NaN is at fault."""
    try:
        return json.loads(raw)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON: {error.msg} at column {error.colno}; fix the line") from None
    except (ValueError, RecursionError):
        raise InputError(f"not valid JSON: {first}; fix the line") from None


def written(value: object) -> bytes:
    """The value as JSON."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate, which fails its row only
        return json.dumps(value).encode()


def splice(row: Row, added: dict, dropped: Iterable[str] = ()) -> bytes:
    """The row as one line of JSON. Its fields stay as the user wrote them (order, number formats, nulls); fields in
    `added` are put in, replacing fields of the same name; fields in `dropped` are left out. A row that is not a JSON
    object becomes an object with only `added`."""
    try:
        row.raw.decode()  # the raw decoder does not look into strings
        fields = _decode_raw(row.raw)
        extra = {key: msgspec.Raw(_encode(value)) for key, value in added.items()}
        encode = _encode
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            fields = row.fields()
        except InputError:
            fields = {}
        extra = added

        def encode(value: object) -> bytes:
            return json.dumps(value).encode()  # ASCII, since it may contain lone surrogates

    for key in dropped:
        fields.pop(key, None)
    fields.update(extra)
    line = encode(fields)
    # In JSON a bare line break can only be whitespace between tokens, so this changes no value.
    return line.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in line or b"\r" in line else line


class RowReader:
    """Reads INPUT once, from start to end, and knows roughly how many rows there are.

    Args:
        path: INPUT, as `read` takes it.
        limit: rows to read; 0: all.
        store: keeps pictures that are inside the rows.
        say: is called with notes for the user, such as what was left out.
    """

    def __init__(
        self,
        path: str | Path,
        limit: int = 0,
        store: Store | None = None,
        say: Callable[[str], None] = lambda message: None,
    ):
        self.limit = limit
        self._store, self._say = store, say
        self._rows = 0
        self._ended = False
        self._sources = sources(path)
        self._all_bytes, self._known = _size(self._sources)

    def __iter__(self) -> Iterator[Row]:
        """As `read`."""
        for source in self._sources:
            source.store, source.say = self._store or source.store, self._say
        for row in _read(self._sources, self.limit):
            self._rows += 1
            yield row
        self._ended = True

    def again(self) -> Iterator[Row]:
        """The rows from the start, without being counted. Of files in object storage the copies that were read before
        are read again."""
        yield from _read(self._sources, self.limit)

    @property
    def expected(self) -> int:
        """Roughly how many rows there are in all, estimated from those read so far; exact at the end; 0 if not yet
        known."""
        if self._ended or not self._rows:
            return self._rows
        used = sum(source.used for source in self._sources)
        if self._known:
            all_rows = self._known
        elif self._all_bytes and used:
            all_rows = max(self._rows, round(self._rows * self._all_bytes / used))
        else:
            return self.limit
        return min(all_rows, self.limit) if self.limit else all_rows


def estimate(path: str | Path, limit: int = 0) -> int:
    """Roughly how many rows INPUT has, from its beginning; 0 if it cannot be read."""
    if is_on_hub(path):
        return 0  # it would be asked for its first rows twice
    seen = 0
    try:
        reader = RowReader(path, limit)
        for _ in itertools.islice(reader, SAMPLED):
            seen += 1
    except (OSError, SettingsError, StorageError):  # the run will say so
        return 0
    return max(seen, reader.expected)


def read(path: str | Path, limit: int = 0) -> Iterator[Row]:
    """The rows in order: of a file by its suffix, of several files whose names match a pattern, of a folder, or of a
    data set of the hub. If `limit` is not 0, only the first `limit` rows.

    Raises:
        SettingsError: a file is not what its name says (a broken row only fails itself). StorageError.
    """
    yield from _read(sources(path), limit)


def is_on_hub(path: str | os.PathLike) -> bool:
    """Whether INPUT is a data set of the hub; a single file in one is read like any in object storage."""
    text = str(path)
    return text.startswith(formats.HUB_PREFIX) and not (glob.has_magic(text) or formats.of(Path(text)))


def is_stored(path: str | os.PathLike) -> bool:
    """Whether INPUT is in object storage."""
    return storage.is_address(path) and not is_on_hub(path)


def files(pattern: str) -> list[str]:
    """The files whose names match a pattern, in the order of their names; none if it is no pattern."""
    if not glob.has_magic(pattern):
        return []
    return sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))


def sources(path: str | Path) -> list[Source]:
    """What INPUT stands for: one file or folder, or each file that matches a pattern. Raises StorageError,
    SettingsError."""
    if is_stored(path):
        address = storage.address(path)
        return [Source(one, size=size) for one, size in storage.expand(address)] or [Source(address)]
    if not is_on_hub(path) and not os.path.exists(path) and (found := files(str(path))):
        return [Source(one) for one in found]
    return [Source(path)]


def _format(source: Source) -> formats.Format:
    if is_on_hub(source.address):
        return formats.HUB
    if source.is_stored:
        return formats.of(Path(source.address)) or formats.STORED_FOLDER
    if source.path.is_dir():
        return formats.FOLDER
    return formats.of(source.path) or (formats.PICTURE if formats.is_picture(source.path) else formats.FORMATS[0])


def _read(sources: list[Source], limit: int) -> Iterator[Row]:
    count = 0
    for source in sources:
        before = count
        try:
            for row in _format(source).read(source):
                count += 1
                yield row if not before else Row(before + row.number, row.raw, row.problem)
                if count == limit:
                    return
        except _DAMAGED as error:
            after = f" after row {count}" if count else ""
            raise SettingsError(f"INPUT {source.address}: cannot be read{after}: {error}; save it again") from None


def _size(sources: list[Source]) -> tuple[int, int]:
    """(bytes of files whose rows are lines, number of rows where it is known without reading), 0 for unknown."""
    size = known = 0
    for source in sources:
        format = _format(source)
        try:
            if format.by_line and source.suffix not in PACKED:
                size += source.size if source.is_stored else source.path.stat().st_size
            elif format.counter and source.suffix not in PACKED and (not source.is_stored or len(sources) == 1):
                known += format.count(source.path)
            else:
                return 0, 0
        except _DAMAGED:
            return 0, 0
    return (size, known) if not (size and known) else (0, 0)
