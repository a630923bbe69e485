"""Records -> Parquet with the pictures inside, as Hugging Face has them: {"bytes", "path"}. With `datasets` also as a
folder that `load_dataset` opens with pictures decoded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow.parquet import ParquetWriter

from fastgen.errors import DiskError, SettingsError
from fastgen.output.writers import columns_of
from fastgen.output.writers.imagefolder import flat
from fastgen.output.writers.records import Record

CHUNK = 64
"""Records that are held at the same time, with their pictures."""
FILE_BYTES = 500 << 20
"""Pictures of one file, at least; then another one begins."""
PICTURE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def write(records: Iterable[Record], folder: Path, decoded: bool = False) -> int:
    """Write data/train-00000.parquet and so on. Returns the number of records.

    Args:
        decoded: whether the files say that the pictures are pictures, for `datasets`.

    Raises:
        DiskError. SettingsError: `datasets` is missing.
    """
    schema = _schema(records, decoded)
    count, number, rest = 0, 0, iter(records)
    data = folder / "data"
    try:
        data.mkdir(parents=True, exist_ok=True)
        names = set()
        while chunk := list(islice(rest, CHUNK)):
            name = f"train-{number:05}.parquet"
            partial = data / f".{name}"
            size = 0
            with ParquetWriter(partial, schema, compression="zstd") as table:
                while chunk:
                    batch = _batch(chunk, schema)
                    table.write_batch(batch)
                    count, size = count + len(chunk), size + batch.nbytes
                    chunk = list(islice(rest, CHUNK)) if size < FILE_BYTES else []
            os.replace(partial, data / name)
            names.add(name)
            number += 1
        for stale in data.glob("train-*.parquet"):
            if stale.name not in names:
                stale.unlink()
    except OSError as error:
        raise DiskError(f"cannot write {folder}: {error.strerror or error}: {error.filename or ''}") from None
    return count


def write_for_datasets(records: Iterable[Record], folder: Path) -> int:
    """As `write`, with types for `datasets`."""
    return write(records, folder, decoded=True)


def _schema(records: Iterable[Record], decoded: bool) -> pyarrow.Schema:
    inputs, has_picture = 0, False

    def rows() -> Iterator[dict]:
        nonlocal inputs, has_picture
        for record in records:
            inputs, has_picture = max(inputs, len(record.inputs)), has_picture or bool(record.picture)
            yield flat(record.fields)

    own = columns_of.schema(rows())
    pictures = [*(["image"] if has_picture else []), *_inputs(inputs)]
    fields = [pyarrow.field(name, PICTURE) for name in pictures]
    schema = pyarrow.schema([*fields, *(field for field in own if field.name not in pictures)])
    if not decoded:
        return schema
    try:
        from datasets import Features, Image
    except ImportError:
        raise SettingsError(
            "--to hf: the package `datasets` is missing; install it with pip install datasets"
        ) from None
    features = Features.from_arrow_schema(schema)
    for name in pictures:
        features[name] = Image()
    return features.arrow_schema


def _inputs(count: int) -> list[str]:
    return [f"input_image{number or ''}" for number in range(count)]


def _batch(records: list[Record], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    rows: list[dict[str, Any]] = []
    for record in records:
        row = flat(record.fields)
        row |= {"image": _picture(record.picture)} if record.picture else {"image": None}
        row |= dict(zip(_inputs(len(record.inputs)), map(_picture, record.inputs), strict=True))
        rows.append(row)
    return next(columns_of.batches(rows, schema))


def _picture(path: str) -> dict[str, Any]:
    return {"bytes": Path(path).read_bytes(), "path": os.path.basename(path)}
