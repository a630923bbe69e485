"""Folders in object storage: pictures in files of their own, with or without a file of metadata, or files of rows of
one format. Told by names alone: no file is opened to find out what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from fastgen.errors import SettingsError
from fastgen.input import storage
from fastgen.input.readers import formats
from fastgen.input.readers.folder import METADATA, MOST_NAMED, PICTURES, SAVED, from_file, say_left_out
from fastgen.input.readers.rows import Row, written
from fastgen.input.readers.source import Source

Files = list[tuple[str, int]]
"""(path from the folder, bytes) each."""


def read(folder: Source) -> Iterator[Row]:
    """Raises OSError, StorageError, SettingsError."""
    files = listed(folder.address)
    match contents(folder.address, files):
        case "metadata":
            yield from _of_files(folder, _metadata(files), moves=True)
        case "rows":
            yield from _of_files(folder, [file for file in files if "/" not in file[0]], moves=False)
        case _:
            yield from _pictures(folder, files)


def listed(address: str) -> Files:
    """The files that are not hidden, in the order of their names. Raises StorageError, SettingsError."""
    return [file for file in storage.below(address) if not any(part.startswith(".") for part in file[0].split("/"))]


def contents(address: str, files: Files) -> str:
    """What a folder holds, as `folder.contents` says it. Raises SettingsError for what `datasets` saved."""
    if any(name in SAVED for name, _ in files):
        raise SettingsError(f"INPUT {address}: was saved by `datasets`; copy the folder here, and give the copy")
    if _metadata(files):
        return "metadata"
    found = {formats.of(PurePosixPath(name)) for name, _ in files}
    if len(found) == 1 and (only := found.pop()) is not None and only.name not in ("txt", "json"):
        return "rows"
    return "pictures" if files else ""


def _metadata(files: Files) -> Files:
    """The files of metadata: in the folder, else in its subfolders."""
    for depth in (0, 1):
        if found := [file for file in files if file[0].count("/") == depth and file[0].split("/")[-1] in METADATA]:
            return found
    return []


def _of_files(folder: Source, files: Files, moves: bool) -> Iterator[Row]:
    number = 0
    for name, size in files:
        file = Source(f"{folder.address}/{name}", folder.store, folder.say, size)
        below = name.rpartition("/")[0] if moves else ""
        for row in from_file(file, below):
            number += 1
            yield Row(number, row.raw, row.problem)


def _pictures(folder: Source, files: Files) -> Iterator[Row]:
    """One row per picture, by its suffix: {"image": path from the folder}. Other files are left out, and said."""
    pictures = [name for name, _ in files if name.lower().endswith(PICTURES)]
    for number, name in enumerate(pictures, 1):
        yield Row(number, written({"image": name}))
    others = [name for name, _ in files if not name.lower().endswith(PICTURES)]
    say_left_out(folder, len(others), others[:MOST_NAMED])
