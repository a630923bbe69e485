"""The user's rows: read one at a time, and written back with fields added. Does not know what the fields mean.

`.jsonl` streams in constant memory; a `.json` list is held as raw bytes for the run.
Adding a reader: yield `Row`s from one more suffix in `read`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from fastgen.errors import InputError, SettingsError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Names of files that count as pictures where INPUT is a folder."""
_BOM = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row as the user wrote it."""

    number: int
    """The line in a .jsonl file or the place in a .json list, from 1."""
    raw: bytes

    def fields(self) -> dict:
        """The row as a dict. Raises InputError when it is not a JSON object."""
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
    """Python's reader also takes NaN and integers of any length; a NaN is then the fault of its field alone."""
    try:
        return json.loads(raw)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON: {error.msg} at column {error.colno}; mend the line") from None
    except (ValueError, RecursionError):
        raise InputError(f"not valid JSON: {first}; mend the line") from None


class RowReader:
    """Reads INPUT once, from the start to the end, and knows about how many rows there are.

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
        """About how many rows there are in all, judged by those read so far; exact at the end; 0: not known yet."""
        if self._ended or not self._rows:
            return self._rows
        if self.path.suffix.lower() != ".jsonl" or self.path.is_dir():
            return self.limit
        all_rows = max(self._rows, round(self._rows * self.path.stat().st_size / self._bytes))
        return min(all_rows, self.limit) if self.limit else all_rows


def read(path: Path, limit: int = 0) -> Iterator[Row]:
    """The rows of a .jsonl or .json file in order, blank lines left out, or of a folder of pictures; the first `limit`
    of them if not 0.

    Raises:
        SettingsError: a .json file that is not a list (a broken .jsonl line is the fault of that row alone).
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
    mend = "a .json file holds one list of rows: [{...}, {...}]; for a row a line name it .jsonl"
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


def _read_folder(path: Path) -> Iterator[Row]:
    """A row for every picture in a folder and those below it, by name: {"image": path from there}."""
    number = 0
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(PICTURES) and not name.startswith("."):
                number += 1
                yield Row(number, _encode({"image": os.path.relpath(os.path.join(folder, name), path)}))


def splice(row: Row, added: dict, dropped: Iterable[str] = ()) -> bytes:
    """The row as one line of JSON with its fields as the user wrote them (order, number formats, nulls), `added`
    put in (in place where a field of that name stands) and `dropped` left out. A row that is not a JSON object
    becomes one that carries only `added`."""
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
            return json.dumps(value).encode()  # ASCII, since it may hold halves of characters

    for key in dropped:
        fields.pop(key, None)
    fields.update(extra)
    line = encode(fields)
    # Only whitespace between tokens can be a bare line break in JSON, so this changes no value.
    return line.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in line or b"\r" in line else line


def write_jsonl(path: Path, rows: Iterable[dict]) -> int:
    """Spool rows that come from Python, so that they can be read twice. Returns how many."""
    count = 0
    with path.open("wb") as file:
        for count, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise SettingsError(f"row {count}: each row is a dict, not {type(row).__name__}")
            file.write(_encode(row) + b"\n")
    return count
