"""Tables in Parquet and in Arrow files, read in batches. Pictures in bytes become files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fastgen.input.embedded_pictures import Store, kind
from fastgen.input.readers.rows import Row, written
from fastgen.input.readers.source import PACKED, Source

if TYPE_CHECKING:
    import pyarrow

BATCH = 4096
"""Rows that are held at the same time."""
BATCH_OF_PICTURES = 64
_encode = msgspec.json.Encoder().encode


def read(file: Source) -> Iterator[Row]:
    """Raises OSError, ValueError."""
    from pyarrow.parquet import ParquetFile

    with file.open() as opened:
        packed = file.suffix in PACKED  # its end comes first, so all of it is unpacked
        table = ParquetFile(io.BytesIO(opened.read()) if packed else opened)
        schema = table.schema_arrow
        size = BATCH_OF_PICTURES if has_bytes(schema) else BATCH
        yield from rows_of(table.iter_batches(batch_size=size), file.store)


def count(path: Path) -> int:
    """Raises OSError, ValueError."""
    from pyarrow.parquet import read_metadata

    return read_metadata(path).num_rows


def rows_of(batches: Iterable[pyarrow.RecordBatch], store: Store) -> Iterator[Row]:
    """The rows of record batches."""
    number = 0
    for batch in batches:
        bytes_in = has_bytes(batch.schema)
        for fields in batch.to_pylist():
            number += 1
            yield Row(number, encoded(fields, store) if bytes_in else _line(fields))


def encoded(fields: dict, store: Store) -> bytes:
    """A row that may hold pictures in bytes, or as Hugging Face has them: {"bytes", "path"}."""
    return _line({name: _plain(value, store) for name, value in fields.items()})


def _plain(value: Any, store: Store) -> Any:
    match value:
        case bytes():
            return store.keep(value) if kind(value[:32]) else value
        case {"bytes": bytes() as data, **rest} if set(rest) <= {"path"}:
            return store.keep(data)
        case {"bytes": None, "path": str() as path, **rest} if not rest:
            return path
        case dict():
            return {name: _plain(item, store) for name, item in value.items()}
        case list():
            return [_plain(item, store) for item in value]
    return value


def _line(fields: dict) -> bytes:
    try:
        return _encode(fields)
    except (UnicodeEncodeError, TypeError, OverflowError):
        return written({name: value if _is_plain(value) else str(value) for name, value in fields.items()})


def _is_plain(value: object) -> bool:
    try:
        _encode(value)
    except (TypeError, OverflowError):
        return False
    except UnicodeEncodeError:
        pass
    return True


def has_bytes(schema: pyarrow.Schema) -> bool:
    """Whether a column may hold bytes."""
    import pyarrow.types as kinds

    def may(type: pyarrow.DataType) -> bool:
        if kinds.is_binary(type) or kinds.is_large_binary(type) or kinds.is_fixed_size_binary(type):
            return True
        return any(may(type.field(i).type) for i in range(type.num_fields))

    return any(may(field.type) for field in schema)
