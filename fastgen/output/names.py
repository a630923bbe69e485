"""Names of image files: by --name, else the row's id, else its number. Does not know what is on the disk."""

from __future__ import annotations

import re
from string import Formatter

import msgspec

from fastgen.errors import SettingsError
from fastgen.output import artifacts
from fastgen.types import ImageParams, warm

IN_FOLDER = 10_000
"""Rows whose images are in one folder, if a run has many."""
_OWN = ("id", "row", "seed", "width", "height")
_NUMBERED = re.compile(r"row-\d{6,}")


class Layout(msgspec.Struct, frozen=True):
    """How a run folder names its images. It stays as it was when the folder was made."""

    numbered: bool = False
    """Whether rows without an id of their own are named by their number; else by a hash."""
    folders: bool = False
    """Whether images are in folders of `IN_FOLDER` rows."""


warm(Layout)


def check_pattern(pattern: str) -> str:
    """--name without its {n}. Raises SettingsError."""
    stem = pattern.removesuffix("_{n}")
    try:
        fields = [field for _, field, _, _ in Formatter().parse(stem) if field is not None]
    except ValueError as error:
        raise SettingsError(f"--name {pattern}: {error}; write it as '{{id}}_{{n}}'") from None
    if "n" in fields:
        raise SettingsError(f"--name {pattern}: {{n}} stands at the end, after _, as in '{{id}}_{{n}}'")
    if stem and not {"id", "row"} & set(fields):
        raise SettingsError(f"--name {pattern}: must have {{id}} or {{row}}, so that no two rows have one name")
    if any(not field.isidentifier() for field in fields) or "/" in stem:
        raise SettingsError(f"--name {pattern}: has only {{id}}, {{row}}, {{seed}}, {{width}}, {{height}} and columns")
    return stem if stem != "{id}" else ""


def stem(
    id: str, has_own_id: bool, number: int, params: ImageParams, fields: dict, pattern: str, layout: Layout
) -> str:
    """The prefix of the file names of a row; "" for the usual one of its id.

    Args:
        has_own_id: whether the user gave the id.
        number: of the row.
        fields: of the row.
    """
    by_number = layout.numbered and not has_own_id
    name = f"row-{number:06}" if by_number else artifacts.stem(id)
    if layout.numbered and not by_number and _NUMBERED.fullmatch(name):
        name = artifacts.stem(id, "its own id")
    if pattern:
        own = {"id": name, "row": f"{number:06}", "seed": str(params.seed)}
        own |= {"width": str(params.width), "height": str(params.height)}
        name = "".join(
            text + (own.get(field) or _plain(fields.get(field)) if field is not None else "")
            for text, field, _, _ in Formatter().parse(pattern)
        )
    if layout.folders:
        return f"{(number - 1) // IN_FOLDER:05}/{name}"
    return name if by_number or name != artifacts.stem(id) else ""


def _plain(value: object) -> str:
    """A value of a column as a part of a file name."""
    return re.sub(r"[^\w.-]+", "_", str(value if value is not None else ""))[:60].strip("._-") or "none"
