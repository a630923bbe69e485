"""How many pictures the rows of INPUT name, and whether they name them again. Reads names only, never a picture."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from fastgen.config.settings import Rows
from fastgen.errors import InputError, SettingsError
from fastgen.input import images
from fastgen.input.columns import Columns
from fastgen.input.readers import folder
from fastgen.input.readers import rows as readers
from fastgen.input.row_schema import read_flag, read_images

SAMPLE = 2000
"""Rows from the start of INPUT that are read."""
SHARE = 0.05
"""Pictures repeat if at least this share of the uses of a picture is not its first."""


class Repeats(msgspec.Struct, frozen=True):
    """Of the first rows of INPUT."""

    uses: int
    """Pictures that the rows name, each as often as it is named."""
    pictures: int
    """Different ones among them."""
    rows: int
    """Rows that were read."""
    most: int = 1
    """Pictures of the row that names most."""

    @property
    def many(self) -> bool:
        return self.uses - self.pictures >= max(1, SHARE * self.uses)

    def explain(self) -> str:
        return f"the first {self.rows} rows name {self.pictures} pictures {self.uses} times"


def sample(path: str | Path, rows: Rows, limit: int = 0) -> Repeats | None:
    """None if it cannot be known: no row names a picture, or INPUT cannot be read.

    Args:
        path: INPUT.
        rows: where relative paths start, and which columns have the images.
        limit: rows of the run; 0: all.
    """
    if readers.is_on_hub(path) or (os.path.isdir(path) and folder.contents(Path(path)) in ("pictures", "")):
        return Repeats(1, 1, 1)  # each file is one row
    columns, places = Columns(rows, "caption"), images.Places(rows.image_root, rows.other_root)
    seen: set[str] = set()
    uses = count = most = 0
    try:
        for row in readers.read(path, min(limit, SAMPLE) if limit else SAMPLE):
            count += 1
            try:
                fields, _ = columns.read(row.fields())
                found = () if read_flag(fields, "text_only") else read_images(fields, places, "caption")[1]
            except InputError:  # a row that will fail
                continue
            uses += len(found)
            most = max(most, len(found))
            seen.update(found)
    except (OSError, SettingsError):
        return None
    return Repeats(uses, len(seen), count, most) if uses else None
