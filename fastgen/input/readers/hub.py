"""Data sets of the Hugging Face hub: hf://owner/name, hf://owner/name/split. Streamed by the package `datasets`."""

from __future__ import annotations

from collections.abc import Iterator

from fastgen.errors import SettingsError
from fastgen.input.readers.formats import HUB_PREFIX
from fastgen.input.readers.parquet import encoded
from fastgen.input.readers.rows import Row
from fastgen.input.readers.source import Source


def read(source: Source) -> Iterator[Row]:
    """Raises SettingsError."""
    address = source.address
    owner, _, rest = address.removeprefix(HUB_PREFIX).removeprefix("datasets/").partition("/")
    name, _, split = rest.partition("/")
    if not (owner and name) or "/" in split:
        raise SettingsError(f"INPUT {address}: give hf://OWNER/NAME or hf://OWNER/NAME/SPLIT")
    try:
        import datasets
    except ImportError:
        raise SettingsError(
            f"INPUT {address}: the package `datasets` is missing; install it with pip install datasets"
        ) from None
    try:
        rows = datasets.load_dataset(f"{owner}/{name}", split=split or "train", streaming=True)
        for column, feature in (rows.features or {}).items():
            if isinstance(feature, datasets.Image):  # its file, not its pixels
                rows = rows.cast_column(column, datasets.Image(decode=False))
        for number, fields in enumerate(rows, 1):
            yield Row(number, encoded(fields, source.store))
    except (OSError, ValueError, RuntimeError) as error:  # the hub's errors are among them
        raise SettingsError(f"INPUT {address}: cannot be read from the hub: {error}") from None
