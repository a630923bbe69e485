"""How many pictures the rows of INPUT name, and whether they name them again. Reads names only, never a picture."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fastgen.errors import InputError, SettingsError
from fastgen.input.readers import rows
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


def sample(path: Path, root: str, limit: int = 0) -> Repeats | None:
    """None if it cannot be known: no row names a picture, or INPUT cannot be read.

    Args:
        path: a file of rows, or a folder of images.
        root: where relative paths start.
        limit: rows of the run; 0: all.
    """
    if path.is_dir():
        return Repeats(1, 1, 1)  # each file is one row
    seen: set[str] = set()
    uses = count = most = 0
    try:
        for row in rows.read(path, min(limit, SAMPLE) if limit else SAMPLE):
            count += 1
            try:
                fields = row.fields()
                found = () if read_flag(fields, "text_only") else read_images(fields, root, "caption")[1]
            except InputError:  # a row that will fail
                continue
            uses += len(found)
            most = max(most, len(found))
            seen.update(found)
    except (OSError, SettingsError):
        return None
    return Repeats(uses, len(seen), count, most) if uses else None
