"""Rows of JSON -> columns of Arrow: finds one type for each column over all rows, and makes batches of it. A column
whose values have no common type becomes text, in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow
from pyarrow import types

CHUNK = 4096
"""Rows that are held at the same time."""
MOST_FIELDS = 200
"""An object with more names than this over all rows is no record, but a dictionary: it becomes text."""


def schema(rows: Iterable[dict]) -> pyarrow.Schema:
    """The types of all columns, in the order in which they first appear."""
    found: dict[str, pyarrow.DataType | None] = {}
    for chunk in chunks(rows):
        for name in dict.fromkeys(name for row in chunk for name in row):
            here = _type_of([row.get(name) for row in chunk])
            found[name] = _common(found[name], here) if name in found else here
    return pyarrow.schema([(name, _settled(kind)) for name, kind in found.items()])


def batches(rows: Iterable[dict], schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    """The rows with these types."""
    for chunk in chunks(rows):
        columns = [_column([row.get(field.name) for row in chunk], field.type) for field in schema]
        yield pyarrow.RecordBatch.from_arrays(columns, schema=schema)


def chunks(rows: Iterable[dict]) -> Iterator[list[dict]]:
    rest = iter(rows)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _column(values: list[Any], kind: pyarrow.DataType) -> pyarrow.Array:
    if types.is_string(kind):
        values = [_text(value) for value in values]
    return pyarrow.array(values, type=kind)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()  # half a character, which Arrow cannot have


def _type_of(values: list[Any]) -> pyarrow.DataType | None:
    """The common type of some values; None if they have none."""
    try:
        return pyarrow.array(values).type
    except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError, TypeError, ValueError):
        return None


def _common(one: pyarrow.DataType | None, other: pyarrow.DataType | None) -> pyarrow.DataType | None:
    """The type that holds values of both; None if there is none."""
    if one is None or other is None or one == other:
        return one if one == other else None
    if types.is_null(one) or types.is_null(other):
        return other if types.is_null(one) else one
    if {one, other} == {pyarrow.int64(), pyarrow.float64()}:
        return pyarrow.float64()
    if types.is_list(one) and types.is_list(other):
        inner = _common(one.value_type, other.value_type)
        return None if inner is None else pyarrow.list_(inner)
    if types.is_struct(one) and types.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            kind = _common(fields[field.name], field.type) if field.name in fields else field.type
            if kind is None:
                return None
            fields[field.name] = kind
        return pyarrow.struct(list(fields.items())) if len(fields) <= MOST_FIELDS else None
    return None


def _settled(kind: pyarrow.DataType | None) -> pyarrow.DataType:
    """A type that Parquet can have: text where there is no common type, nothing but nulls, or an empty object."""
    if kind is None or not _is_whole(kind):
        return pyarrow.string()
    if types.is_list(kind):
        return pyarrow.list_(_settled(kind.value_type))
    if types.is_struct(kind):
        return pyarrow.struct([(field.name, _settled(field.type)) for field in kind])
    return pyarrow.string() if types.is_null(kind) else kind


def _is_whole(kind: pyarrow.DataType) -> bool:
    """Whether no part of it is an empty object."""
    if types.is_struct(kind):
        return 0 < kind.num_fields <= MOST_FIELDS and all(_is_whole(field.type) for field in kind)
    return _is_whole(kind.value_type) if types.is_list(kind) else True
