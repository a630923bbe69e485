"""Records -> a folder of pictures with metadata.jsonl, as `load_dataset("imagefolder")` reads it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from fastgen.errors import DiskError
from fastgen.output.writers.records import Record

METADATA = "metadata.jsonl"
IN_FOLDER = 10_000
"""Pictures of one subfolder."""


def write(records: Iterable[Record], folder: Path) -> int:
    """Copy the pictures (or link them, on the same disk) and write their metadata. Returns their number. Raises
    DiskError."""
    count = 0
    partial = folder / f".{METADATA}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", errors="replace") as file:
            for record in records:
                if not record.picture:
                    continue
                place = f"{count // IN_FOLDER:05}"
                line = {"file_name": _place(record.picture, folder, f"{place}/{record.key}")}
                for number, path in enumerate(record.inputs):
                    name = f"input{number or ''}"
                    line[f"{name}_file_name"] = _place(path, folder, f"{place}/{record.key}_{name}")
                file.write(json.dumps(line | flat(record.fields), ensure_ascii=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, folder / METADATA)
    except OSError as error:
        raise DiskError(f"cannot write {folder}: {error.strerror}: {error.filename or ''}") from None
    return count


def flat(fields: dict) -> dict:
    """The fields, with `fastgen` as the few of its parts that every row has: data sets want one type per column."""
    about = fields.get("fastgen")
    own = {name: value for name, value in fields.items() if name != "fastgen"}
    if isinstance(about, dict):
        kept = ("id", "status", "backend", "model", "seed", "width", "height", "steps", "guidance")
        own |= {f"fastgen_{name}": about[name] for name in kept if name in about}
    return own


def _place(path: str, folder: Path, name: str) -> str:
    """Bring a picture into the folder. Returns its path there."""
    target = folder / f"{name}{os.path.splitext(path)[1].lower() or '.png'}"
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(path, target)
    return str(target.relative_to(folder))
