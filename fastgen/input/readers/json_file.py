"""Files with JSON that is one value: a list of rows, or an object of rows by their id. Held in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

import msgspec

from fastgen.errors import SettingsError
from fastgen.input.readers.rows import Row, written
from fastgen.input.readers.source import Source

_MEND = (
    "a .json file holds one list of rows: [{...}, {...}], or an object of rows by their id; with one row per line, "
    "name it .jsonl"
)


def read(file: Source) -> Iterator[Row]:
    """Raises SettingsError if the file is not one list or object of rows."""
    data = file.whole()
    for number, item in enumerate(_items(file, data), 1):
        yield Row(number, bytes(item))


def read_several(file: Source) -> Iterator[Row]:
    """A list of rows, or objects one after the other, each over several lines. Raises SettingsError."""
    text, at, number = file.whole().decode("utf-8", "replace").strip(), 0, 0
    if text.startswith("["):
        yield from read(file)
        return
    decode = json.JSONDecoder().raw_decode
    while at < len(text):
        try:
            value, at = decode(text, at)
        except (ValueError, RecursionError) as error:
            raise SettingsError(
                f"INPUT {file.address}: not valid JSON after row {number}: {error}; fix the file"
            ) from None
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        number += 1
        yield Row(number, written(value))


def _items(file: Source, data: bytes) -> Iterable[bytes | msgspec.Raw]:
    """The rows. Raises SettingsError."""
    try:
        return msgspec.json.decode(data, type=list[msgspec.Raw])
    except RecursionError:
        items = _split(data)
        if items is None:
            raise SettingsError(f"INPUT {file.address}: not valid JSON: it is nested too deep; {_MEND}") from None
        return items
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"INPUT {file.address}: not valid JSON: {error}; {_MEND}") from None
    if isinstance(value, list):
        return [written(item) for item in value]
    if isinstance(value, dict) and value and all(isinstance(item, dict) for item in value.values()):
        return [written({"id": id, **item}) for id, item in value.items()]
    raise SettingsError(f"INPUT {file.address}: {_MEND}")


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
