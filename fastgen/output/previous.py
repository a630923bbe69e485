"""--fresh: moves what earlier runs left in a run folder into previous-1/ (-2, ...). Deletes nothing, and moves nothing
that the new run reads."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from fastgen.config.settings import Settings
from fastgen.errors import InputError, SettingsError
from fastgen.input.columns import Columns
from fastgen.input.readers import rows
from fastgen.input.requests import input_paths, places
from fastgen.output import artifacts
from fastgen.output.artifacts import IMAGES, LOGS

RUN = "run.json"
RESULTS = "results.jsonl"
FAILURES = "failures.jsonl"
JOURNAL = "journal.jsonl"
BATCHES = ".batches"
"""What a Batch API was asked for; see outbox.py."""
NAME = "previous-"
_ASIDE = re.compile(NAME + r"\d+")
_KEPT_TABLE = re.compile(r"results-\d+\.jsonl")


def tables(out: Path) -> list[Path]:
    """The tables in a run folder, including those of other INPUTs."""
    kept = sorted(path for path in out.glob("results-*.jsonl") if _KEPT_TABLE.fullmatch(path.name))
    return [path for path in (out / RESULTS, out / FAILURES, *kept) if path.exists()]


def images(out: Path) -> Iterator[Path]:
    """Everything among the images of a run, without temporary files and what was moved aside."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(out / IMAGES) as entries:
        for entry in entries:  # there may be a million, of which most callers want one
            if not (entry.name.startswith(".") or entry.name == "lost+found" or _ASIDE.fullmatch(entry.name)):
                yield out / IMAGES / entry.name


def left_by_runs(out: Path) -> list[Path]:
    """What --fresh moves: nothing, if there is no result among it. run.json comes last, so that a half-moved folder is
    still recognised as a run folder. The journal comes first, so that no run continues with half of the files."""
    journal, table, pictures = out / JOURNAL, tables(out), any(images(out))
    if not (pictures or any(path.stat().st_size for path in (journal, *table) if path.exists())):
        return []
    found = [journal, *table, *([out / IMAGES] if pictures else []), out / BATCHES, out / LOGS, out / RUN]
    return [path for path in found if os.path.lexists(path)]


def read_by(settings: Settings, input: str, out: Path) -> str:
    """The first file that a run reads and that --fresh would move; "" if there is none.

    Args:
        input: INPUT, or the file of rows from Python; "" if not yet known.
    """
    places = [os.path.realpath(path) for path in left_by_runs(out)]
    if not places:
        return ""
    weights = (settings.model.path, settings.engine.transformer, *(path for path, _ in settings.engine.loras))
    for path in filter(None, (input, *weights)):
        if _within(os.path.realpath(path), places):
            return path
    real_folder = lru_cache(maxsize=4096)(os.path.realpath)  # many rows, few folders
    for path in _pictures(settings, input):
        folder, name = os.path.split(path)
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(real_folder(folder), name)
        if _within(real, places):
            return path
    return ""


def move_aside(out: Path) -> str:
    """Move what earlier runs left. Returns the name of its new folder, "" if there was nothing.

    Raises:
        OSError, DiskError.
    """
    targets = left_by_runs(out)
    if not targets:
        return ""
    aside = _next(out, targets)
    aside.mkdir(exist_ok=True)
    for target in targets:
        if target.name == IMAGES and target.is_symlink():
            _move_content(target, aside)
            continue
        try:
            os.rename(target, aside / target.name)
        except OSError as error:
            if target.name != IMAGES or error.errno not in (errno.EBUSY, errno.EXDEV):
                raise
            _move_content(target, aside)
    artifacts.sync_folder(aside)
    artifacts.sync_folder(out)
    return aside.name


def _next(out: Path, targets: list[Path]) -> Path:
    """A new folder, or the last one if a move into it was interrupted."""
    numbers = [int(path.name.removeprefix(NAME)) for path in out.glob(f"{NAME}*") if _ASIDE.fullmatch(path.name)]
    last = out / f"{NAME}{max(numbers, default=0)}"
    if last.is_dir() and not (last / RUN).exists():
        ours = {JOURNAL, RESULTS, FAILURES, IMAGES, BATCHES, LOGS}
        names = set(os.listdir(last))
        known = all(name in ours or _KEPT_TABLE.fullmatch(name) for name in names)
        if known and not names & {path.name for path in targets}:
            return last
    return out / f"{NAME}{max(numbers, default=0) + 1}"


def _move_content(folder: Path, aside: Path) -> None:
    """Images on a disk of their own stay on it, in a folder to which the one that is moved aside has a link."""
    place = folder / aside.name
    place.mkdir(exist_ok=True)
    for path in list(images(folder.parent)):
        os.rename(path, place / path.name)
    artifacts.sync_folder(place)
    os.symlink(os.path.join("..", IMAGES, aside.name), aside / IMAGES)


def _pictures(settings: Settings, input: str) -> Iterator[str]:
    """The images that the rows name."""
    if not input or settings.task == "t2i":
        return
    try:
        columns = Columns(settings.rows, settings.task)
        for row in rows.read(input, settings.run.limit):
            try:
                yield from input_paths(columns.read(row.fields())[0], settings, places(settings, ""))
            except InputError:  # the row will fail and read nothing
                continue
    except (SettingsError, OSError):  # the run will report it
        return


def _within(path: str, places: list[str]) -> bool:
    return any(path == place or path.startswith(place + os.sep) for place in places)
