"""The page as one static folder that a browser opens without a server: `index.html`, the rows in scripts, copies of the
images. Scripts, because a page that is opened from a disk may load those, and nothing else but images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fastgen.errors import DiskError, InputError, RunFolderError
from fastgen.view.about import about_run
from fastgen.view.listed import Listed
from fastgen.view.pictures import full, thumbnail
from fastgen.view.run_rows import RunRows
from fastgen.view.server import FILES, PAGE

ROWS_IN_FILE = 5000
DETAILS_IN_FILE = 200
IN_FOLDER = 1000
"""Rows whose images share a folder."""
MARK = "fastgen-view.txt"
"""In every folder that was written here, so that a second export may replace it."""


def export(paths: Sequence[Path], folder: Path) -> int:
    """Write the page of some runs into a folder.

    Returns:
        the number of rows.

    Raises:
        RunFolderError: a path is no run folder, or the folder has something else in it. DiskError, SettingsError.
    """
    runs = [RunRows(path) for path in paths]
    try:
        _check(folder, runs)
        _prepare(folder)
        for number, run in enumerate(runs):
            _write_run(folder, number, run)
        _script(folder / "data" / "runs.js", "runs", [about_run(run) for run in runs])
        for name in FILES:
            shutil.copyfile(PAGE / name, folder / name)
        page = (PAGE / "index.html").read_text("utf-8")
        # Before the scripts of the page, so that they know that there is no server.
        page = page.replace("<!-- exported -->", '<script src="data/runs.js"></script>')
        (folder / "index.html").write_text(page, "utf-8")
    except OSError as error:
        raise DiskError(f"cannot write {folder}: {error.strerror}") from None
    finally:
        for run in runs:
            run.close()
    return sum(len(run.rows) for run in runs)


def _check(folder: Path, runs: Sequence[RunRows]) -> None:
    real = Path(os.path.realpath(folder))
    if any(real == (path := Path(os.path.realpath(run.path))) or path in real.parents for run in runs):
        raise RunFolderError(f"--export {folder}: is in a run folder; choose another one")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).exists())):
        raise RunFolderError(f"--export {folder}: has other files; choose a folder that is empty, or a new one")


def _prepare(folder: Path) -> None:
    for name in ("data", "images", "thumbs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    (folder / MARK).write_text("written by fastgen view --export; open index.html\n")


def _write_run(folder: Path, number: int, run: RunRows) -> None:
    listed: list[tuple[int, Listed]] = []
    details: list[dict[str, Any]] = []
    run.read()
    for position, row in enumerate(run.rows):
        listed.append((position, row))
        details.append(_details(folder, number, position, run))
        if len(details) == DETAILS_IN_FILE or position == len(run.rows) - 1:
            part = position // DETAILS_IN_FILE
            _script(folder / "data" / str(number) / f"details-{part}.js", "details", number, part, details)
            details = []
        if len(listed) == ROWS_IN_FILE or position == len(run.rows) - 1:
            part = position // ROWS_IN_FILE
            _script(folder / "data" / str(number) / f"rows-{part}.js", "rows", number, listed)
            listed = []


def _details(folder: Path, number: int, position: int, run: RunRows) -> dict[str, Any]:
    line = run.line(position)
    sides: dict[str, list[str]] = {"out": [], "in": []}
    for side, k, path in _paths(run, line):
        place = f"images/{number}/{position // IN_FOLDER}/{position}-{side}-{k}"
        small = folder / f"thumbs/{number}/{position // IN_FOLDER}/{position}-{side}-{k}.webp"
        try:
            picture = full(path)
            made = thumbnail(path).data
        except InputError:
            sides[side].append("")
            continue
        name = f"{place}.{picture.suffix}"
        for target, data in ((folder / name, picture.data), (small, made)):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        sides[side].append(name)
    return {**msgspec.structs.asdict(run.reading.details(line)), **sides}


def _paths(run: RunRows, line: bytes) -> Iterator[tuple[str, int, str]]:
    for side, paths in (("out", run.reading.outputs(line)), ("in", run.reading.inputs(line))):
        for k, path in enumerate(paths):
            yield side, k, path


def _script(path: Path, name: str, *values: object) -> None:
    """A script that gives the page some values; JSON is JavaScript."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"fastgen.exported.%b(%b);\n" % (name.encode(), b",".join(map(msgspec.json.encode, values))))
