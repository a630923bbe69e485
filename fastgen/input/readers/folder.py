"""Folders: pictures in files of their own, with or without a file of metadata; data sets as Hugging Face saves them; or
files of rows of one format."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from fastgen.errors import InputError, SettingsError, quoted
from fastgen.input.embedded_pictures import kind
from fastgen.input.readers import formats, parquet
from fastgen.input.readers.rows import Row, written
from fastgen.input.readers.source import Source

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Files with these suffixes are rows even if their content is no picture: then the row fails and names them."""
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
OF_A_RUN = ("run.json", "rows.jsonl", "results.", "failures.", "journal.jsonl", f"logs{os.sep}")
"""How the names of other files in a run folder begin; nobody takes them for pictures."""
MOST_NAMED = 5
"""Files left out that a note names."""
SAVED = _STATE, _SPLITS = "state.json", "dataset_dict.json"
"""Files of what `datasets` saved."""


def read(folder: Source) -> Iterator[Row]:
    """Raises OSError, ValueError, SettingsError."""
    match contents(folder.path):
        case "saved":
            yield from _saved(folder)
        case "metadata":
            yield from _with_metadata(folder)
        case "rows":
            yield from _files_of_rows(folder)
        case _:
            yield from _pictures(folder)


def read_picture(file: Source) -> Iterator[Row]:
    """One picture that INPUT names: one row. Its path is absolute, because several may match a pattern."""
    yield Row(1, written({"image": str(file.path.absolute())}))


def count_picture(path: Path) -> int:
    return 1


def contents(path: Path) -> str:
    """What a folder holds: "saved" (by `datasets`), "metadata" (and pictures), "rows" (files of one format), or
    "pictures" ("" if there are no files at all). Raises SettingsError for several splits."""
    if (path / _SPLITS).is_file():
        splits = json.loads((path / _SPLITS).read_text("utf-8")).get("splits", [])
        raise SettingsError(
            f"INPUT {path}: has several splits ({', '.join(splits)}); give one of them, such as "
            f"{path / next(iter(splits), 'train')}"
        )
    if (path / _STATE).is_file():
        return "saved"
    if _metadata(path):
        return "metadata"
    if _folder_of_rows(path) is not None:
        return "rows"
    return "pictures" if any(not name.startswith(".") for name in os.listdir(path)) else ""


def _folder_of_rows(path: Path) -> Path | None:
    """Where files of rows of one format are, and nothing else: the folder, or its data/, as a data set of the hub has
    them beside its card."""
    beside = {name for name in os.listdir(path) if not name.startswith(".") and not name.endswith(".md")}
    place = path / "data" if beside == {"data"} and (path / "data").is_dir() else path
    found = {formats.of(place / name) for name in os.listdir(place) if not name.startswith(".")}
    if len(found) == 1 and (only := found.pop()) is not None and only.name not in ("txt", "json"):
        return place  # texts beside pictures and settings in JSON are found everywhere
    return None


def _metadata(path: Path) -> list[Path]:
    """The files of metadata: in the folder, else in its subfolders."""
    for places in ([path], sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))):
        if found := [place / name for place in places for name in METADATA if (place / name).is_file()]:
            return found
    return []


def _with_metadata(folder: Source) -> Iterator[Row]:
    number = 0
    for file in _metadata(folder.path):
        below = os.path.relpath(file.parent, folder.path)
        for row in from_file(Source(file, folder.store, folder.say), below if below != "." else ""):
            number += 1
            yield Row(number, row.raw, row.problem)


def from_file(file: Source, below: str = "") -> Iterator[Row]:
    """The rows of one file of a folder. `below`: the subfolder that it is in, if paths in its rows start there. Raises
    OSError, ValueError, SettingsError."""
    format = formats.of(Path(file.address))
    assert format is not None
    for row in format.read(file):
        yield Row(row.number, _moved(row, below), row.problem) if below else row


def _moved(row: Row, below: str) -> bytes:
    """The row with the paths of its pictures, which start in a subfolder, as paths from the folder."""
    try:
        fields = row.fields()
    except InputError:
        return row.raw
    for name, value in fields.items():
        if name.endswith("file_name") and isinstance(value, str):
            fields[name] = os.path.join(below, value)
        elif name.endswith("file_names") and isinstance(value, list):
            fields[name] = [os.path.join(below, one) if isinstance(one, str) else one for one in value]
    return written(fields)


def _saved(folder: Source) -> Iterator[Row]:
    """What `datasets.Dataset.save_to_disk` wrote."""
    import pyarrow

    state = json.loads((folder.path / _STATE).read_text("utf-8"))

    def batches() -> Iterator[pyarrow.RecordBatch]:
        for file in state["_data_files"]:
            with pyarrow.memory_map(str(folder.path / file["filename"])) as opened:
                for batch in pyarrow.ipc.open_stream(opened):
                    for start in range(0, batch.num_rows, parquet.BATCH_OF_PICTURES):
                        yield batch.slice(start, parquet.BATCH_OF_PICTURES)

    yield from parquet.rows_of(batches(), folder.store)


def _files_of_rows(folder: Source) -> Iterator[Row]:
    number, place = 0, _folder_of_rows(folder.path)
    assert place is not None
    for name in sorted(os.listdir(place)):
        if not name.startswith("."):
            for row in from_file(Source(place / name, folder.store, folder.say)):
                number += 1
                yield Row(number, row.raw, row.problem)


def _pictures(folder: Source) -> Iterator[Row]:
    """One row per picture in a folder and its subfolders, in the order of their names: {"image": relative path}. A
    link to a folder is followed once; other files are left out, and said."""
    number, others, is_run = 0, 0, (folder.path / "run.json").is_file()
    named: list[str] = []
    seen: set[tuple[int, int]] = set()
    for place, below, names in os.walk(folder.path, followlinks=True):
        about = os.stat(place)
        if (about.st_dev, about.st_ino) in seen:
            below[:] = []
            continue
        seen.add((about.st_dev, about.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = os.path.join(place, name)
            relative = os.path.relpath(path, folder.path)
            if name.lower().endswith(PICTURES) or _is_picture(path):
                number += 1
                yield Row(number, written({"image": relative}))
            elif not (is_run and relative.startswith(OF_A_RUN)):
                others += 1
                named += [relative] if len(named) < MOST_NAMED else []
    say_left_out(folder, others, named)


def say_left_out(folder: Source, left: int, named: list[str]) -> None:
    """Tell the user of files that are no rows. `named`: the first `MOST_NAMED` of them."""
    if left:
        more = f" and {left - len(named)} more" if left > len(named) else ""
        are = "files are no pictures and" if left > 1 else "file is no picture and is"
        folder.say(f"{left} {are} left out: {quoted(', '.join(named))}{more}")


def _is_picture(path: str) -> bool:
    """Whether a file is a picture, by its content."""
    try:
        if not os.path.isfile(path):  # reading a pipe would never end
            return False
        with open(path, "rb") as file:
            if kind(file.read(32)):
                return True
        return _pillow_reads(path)
    except OSError:
        return False


def _pillow_reads(path: str) -> bool:
    """Of formats whose beginnings are not known here, those that Pillow knows by their suffix and can open."""
    from PIL import Image

    if os.path.splitext(path)[1].lower() not in Image.registered_extensions():
        return False
    try:
        with Image.open(path) as image:
            return image.format not in ("EPS", "WMF", "PDF", "MPEG")
    except Exception:  # Pillow raises anything for files that are not what they are called
        return False
