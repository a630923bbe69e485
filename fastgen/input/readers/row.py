"""One row as the user wrote it, and as a line of a table: its fields with others added. Does not know what the fields
mean."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from fastgen.errors import InputError, quoted

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
