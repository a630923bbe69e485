"""Which formats of rows there are, and which of them a file has: by its suffix; a folder by what is in it.

To add one: a file in this folder with a function that takes a `Source` and yields `Row`s, and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from fastgen.input.readers.source import PACKED, Source


@dataclass(frozen=True)
class Format:
    """One format of rows."""

    name: str
    suffixes: tuple[str, ...]
    reader: str
    """`module:function`; the function takes a `Source` and yields `Row`s."""
    about: str
    """For messages: what such a file has."""
    counter: str = ""
    """`module:function`; the function takes a path and returns the number of rows without reading them; "" if that is
    not possible."""
    by_line: bool = False
    """Whether rows are lines, so that their number follows from the size of the file."""

    def read(self, source: Source) -> Iterator[Any]:
        """The `Row`s of a file."""
        return _function(self.reader)(source)

    def count(self, path: Path) -> int:
        """The number of rows, 0 if it is not known before they are read. Raises OSError, ValueError."""
        return _function(self.counter)(path) if self.counter else 0


FORMATS = [
    Format("jsonl", (".jsonl", ".ndjson"), "fastgen.input.readers.jsonl:read", "one row per line", by_line=True),
    Format("json", (".json",), "fastgen.input.readers.json_file:read", "a list of rows"),
    Format("csv", (".csv", ".tsv"), "fastgen.input.readers.separated:read", "a header, one row per line", by_line=True),
    Format("txt", (".txt",), "fastgen.input.readers.prompts:read", "one prompt per line", by_line=True),
    Format(
        "parquet",
        (".parquet",),
        "fastgen.input.readers.parquet:read",
        "a table of Parquet",
        counter="fastgen.input.readers.parquet:count",
    ),
    Format("webdataset", (".tar",), "fastgen.input.readers.webdataset:read", "a shard of a WebDataset"),
]
FOLDER = Format("folder", (), "fastgen.input.readers.folder:read", "a folder")
STORED_FOLDER = Format("stored folder", (), "fastgen.input.readers.stored_folder:read", "a folder in object storage")
HUB = Format("hub", (), "fastgen.input.readers.hub:read", "a data set of the Hugging Face hub")
PICTURE = Format(
    "picture",
    (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"),
    "fastgen.input.readers.folder:read_picture",
    "a picture",
    counter="fastgen.input.readers.folder:count_picture",
)
"""Of a file that INPUT itself names; in folders pictures are found by their content."""
HUB_PREFIX = "hf://"


def of(path: PurePath) -> Format | None:
    """The format of a file by its suffix, before which there may be .gz or .zst; None if it has no known one."""
    suffix = plain(path).suffix.lower()
    return next((format for format in FORMATS if suffix in format.suffixes), None)


def is_picture(path: PurePath) -> bool:
    """Whether a file has the suffix of a picture."""
    return path.suffix.lower() in PICTURE.suffixes


def plain(path: PurePath) -> PurePath:
    """The path without the suffix of a compressed file."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def suffixes() -> str:
    """All suffixes, for messages."""
    return ", ".join(f"{suffix} ({format.about})" for format in FORMATS for suffix in format.suffixes[:1])


def _function(place: str) -> Callable:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
