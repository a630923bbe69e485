"""Reads the user's rows one at a time, and writes them back with fields added. Does not know what the fields mean.

`.jsonl` streams in constant memory; a `.json` list is kept as raw bytes during the run.
To add a reader, yield `Row`s for one more suffix in `read`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from fastgen.errors import InputError, SettingsError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes of files that count as images when INPUT is a folder."""
_BOM = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row as the user wrote it."""

    number: int
    """The line in a .jsonl file or the position in a .json list, from 1."""
    raw: bytes

    def fields(self) -> dict:
        """The row as a dict. Raises InputError if it is not a JSON object."""
        try:
            value = _decode(self.raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            value = _lenient(self.raw, error)
        if not isinstance(value, dict):
            raise InputError(f'a row is a JSON object such as {{"prompt": "..."}}, this one is {self.excerpt()}')
        return value

    def excerpt(self, most: int = 60) -> str:
        text = self.raw[: 4 * most].decode("utf-8", "replace").strip()
        return text if len(text) <= most else text[:most] + "..."


def _lenient(raw: bytes, first: Exception):
    """Python's JSON reader also accepts NaN and integers of any length, so only the field with the NaN is at fault."""
    try:
        return json.loads(raw)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON: {error.msg} at column {error.colno}; fix the line") from None
    except (ValueError, RecursionError):
        raise InputError(f"not valid JSON: {first}; fix the line") from None


class RowReader:
    """Reads INPUT once, from start to end, and knows roughly how many rows there are.

    Args:
        path: a .jsonl or .json file, or a folder of pictures.
        limit: rows to read; 0: all.
    """

    def __init__(self, path: Path, limit: int = 0):
        self.path = path
        self.limit = limit
        self._rows = self._bytes = 0
        self._ended = False

    def __iter__(self) -> Iterator[Row]:
        """As `read`."""
        for row in read(self.path, self.limit):
            self._rows += 1
            self._bytes += len(row.raw) + 1
            yield row
        self._ended = True

    @property
    def expected(self) -> int:
        """Roughly how many rows there are in all, estimated from those read so far; exact at the end; 0 if not yet
        known."""
        if self._ended or not self._rows:
            return self._rows
        if self.path.suffix.lower() != ".jsonl" or self.path.is_dir():
            return self.limit
        all_rows = max(self._rows, round(self._rows * self.path.stat().st_size / self._bytes))
        return min(all_rows, self.limit) if self.limit else all_rows


def read(path: Path, limit: int = 0) -> Iterator[Row]:
    """The rows of a .jsonl or .json file in order, without blank lines, or of a folder of images. If `limit` is not 0,
    only the first `limit` rows.

    Raises:
        SettingsError: a .json file is not a list (a broken .jsonl line only fails its own row).
    """
    if path.is_dir():
        rows = _read_folder(path)
    elif path.suffix.lower() == ".json":
        rows = _read_list(path)
    else:
        rows = _read_lines(path)
    for count, row in enumerate(rows, 1):
        yield row
        if count == limit:
            return


def _read_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith(_BOM):
                line = line[len(_BOM) :]
            line = line.strip()
            if line:
                yield Row(number, line)


def _read_list(path: Path) -> Iterator[Row]:
    data = path.read_bytes().removeprefix(_BOM)
    mend = "a .json file holds one list of rows: [{...}, {...}]; with one row per line, name it .jsonl"
    try:
        items = msgspec.json.decode(data, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        try:
            value = json.loads(data)
        except ValueError as error:
            raise SettingsError(f"INPUT {path}: not valid JSON: {error}; {mend}") from None
        if not isinstance(value, list):
            raise SettingsError(f"INPUT {path}: {mend}") from None
        items = [json.dumps(item, ensure_ascii=False).encode() for item in value]
    for number, item in enumerate(items, 1):
        yield Row(number, bytes(item))


def _written(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a character, the fault of its row
        return json.dumps(value).encode()


def _read_folder(path: Path) -> Iterator[Row]:
    """One row per image in a folder and its subfolders, in the order of their names: {"image": relative path}."""
    number = 0
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(PICTURES) and not name.startswith("."):
                number += 1
                yield Row(number, _written({"image": os.path.relpath(os.path.join(folder, name), path)}))


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

        def encode(value):
            return json.dumps(value).encode()  # ASCII, since it may contain lone surrogates

    for key in dropped:
        fields.pop(key, None)
    fields.update(extra)
    line = encode(fields)
    # In JSON a bare line break can only be whitespace between tokens, so this changes no value.
    return line.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in line or b"\r" in line else line


def write_jsonl(path: Path, rows: Iterable[dict]) -> int:
    """Write rows that come from Python to a file, so that they can be read twice. Returns their number."""
    count = 0
    with path.open("wb") as file:
        for count, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise SettingsError(f"row {count}: each row is a dict, not {type(row).__name__}")
            file.write(_encode(row) + b"\n")
    return count
