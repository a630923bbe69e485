"""Reads the user's rows one at a time, and writes them back with fields added. Does not know what the fields mean.

`.jsonl` streams in constant memory; a `.json` list is kept as raw bytes during the run. Both are UTF-8, or UTF-16 as
Windows writes it. To add a reader, yield `Row`s for one more suffix in `read`.
"""

from __future__ import annotations

import codecs
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from fastgen.errors import InputError, SettingsError, quoted

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes of files that count as images when INPUT is a folder."""
SAMPLED = 2000
"""Rows that an estimate reads."""
MAX_LINE = 64 << 20
"""Bytes of a row in a .jsonl file, so that a file without line breaks does not fill the memory."""
_BOM = b"\xef\xbb\xbf"
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"{\0", "utf-16-le"),
    (b"\0{", "utf-16-be"),
)
"""The first bytes of files that are not UTF-8."""
_decode = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row as the user wrote it."""

    number: int
    """The line in a .jsonl file or the position in a .json list, from 1."""
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


def estimate(path: Path, limit: int = 0) -> int:
    """Roughly how many rows a file or folder has, from its beginning; 0 if it cannot be read."""
    reader, seen = RowReader(path, limit), 0
    try:
        for _ in itertools.islice(reader, SAMPLED):
            seen += 1
    except (OSError, SettingsError):  # the run will say so
        return 0
    return max(seen, reader.expected)


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
        start = file.read(4)
        encoding = next((name for mark, name in _ENCODINGS if start.startswith(mark)), "")
        file.seek(len(_BOM) if start.startswith(_BOM) else 0)
        for number, line in enumerate(_decoded(file, encoding) if encoding else _lines(file), 1):
            if len(line) > MAX_LINE:
                text = f"the line is longer than {MAX_LINE >> 20} MiB; keep images and the like in files"
                yield Row(number, line[:1000], text)
            elif line := line.strip():
                yield Row(number, line)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines. Of a line that is too long, only the first `MAX_LINE` + 1 bytes."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def _decoded(file: BinaryIO, encoding: str) -> Iterator[bytes]:
    """The lines of a file in UTF-16 or UTF-32, as UTF-8. Bytes that are not text only fail their own row."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    text, ended, skipping = "", False, False
    while not ended:
        chunk = file.read(1 << 20)
        ended = not chunk
        try:
            text += decoder.decode(chunk, ended)
        except UnicodeDecodeError:  # cut in the middle of a character
            text += "\ud800"
        *lines, text = text.split("\n")
        for line in lines:
            if not skipping:
                yield _utf8(line)
            skipping = False
        if text and not skipping and (ended or len(text) > MAX_LINE):
            yield _utf8(text)
            skipping = True  # the rest of this line
        text = "" if skipping else text


def _utf8(text: str) -> bytes:
    return text.removeprefix("\ufeff").encode("utf-8", "surrogatepass")


def _read_list(path: Path) -> Iterator[Row]:
    data = path.read_bytes().removeprefix(_BOM)
    mend = "a .json file holds one list of rows: [{...}, {...}]; with one row per line, name it .jsonl"
    items: Iterable[bytes | msgspec.Raw] | None
    try:
        items = msgspec.json.decode(data, type=list[msgspec.Raw])
    except RecursionError:
        items = _split(data)
        if items is None:
            raise SettingsError(f"INPUT {path}: not valid JSON: it is nested too deep; {mend}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"INPUT {path}: not valid JSON: {error}; {mend}") from None
        if not isinstance(value, list):
            raise SettingsError(f"INPUT {path}: {mend}") from None
        items = [_written(item) for item in value]
    for number, item in enumerate(items, 1):
        yield Row(number, bytes(item))


def _split(data: bytes) -> list[bytes] | None:
    """The items of a list in which one is nested too deep for JSON readers, so that only that one fails. None if it is
    not a list."""
    items, depth, start = [], 0, 0
    for token in re.finditer(rb'"(?:[^"\\]|\\.)*"|[][{},]', data, re.DOTALL):
        mark = token.group()
        if mark in b"[{" and (depth := depth + 1) == 1:
            start = token.end()
        elif (mark in b"]}" and (depth := depth - 1) == 0) or (mark == b"," and depth == 1):
            items.append(data[start : token.start()].strip())
            start = token.end()
    return items if not depth and data.lstrip().startswith(b"[") else None


def _written(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate, which fails its row only
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

        def encode(value: object) -> bytes:
            return json.dumps(value).encode()  # ASCII, since it may contain lone surrogates

    for key in dropped:
        fields.pop(key, None)
    fields.update(extra)
    line = encode(fields)
    # In JSON a bare line break can only be whitespace between tokens, so this changes no value.
    return line.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in line or b"\r" in line else line
