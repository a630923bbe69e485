"""The tables of a run folder, made anew from its journal and INPUT, at any time: before, during and after a run."""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import closing
from pathlib import Path

from filelock import FileLock, Timeout

from fastgen.errors import DiskError, RunFolderError
from fastgen.input.picked import picked_ids
from fastgen.input.readers.rows import is_on_hub, is_stored, read
from fastgen.output import artifacts
from fastgen.output.journal import Journal
from fastgen.output.run_dir import JOURNAL, LOCK, RUN
from fastgen.output.writers.tables import Shape, write_partial_tables


def about(out: Path) -> dict:
    """run.json of a run folder. Raises RunFolderError."""
    try:
        value = json.loads((out / RUN).read_text("utf-8"))
        if isinstance(value, dict) and isinstance(value.get("settings"), dict):
            return value
        reason = "it is damaged"
    except OSError as error:
        reason = str(error.strerror)
    except (ValueError, RecursionError):
        reason = "it is damaged"
    raise RunFolderError(f"RUN {out}: {RUN} cannot be read: {reason}; give the folder of a run")


def only_of(said: dict, shape: Shape) -> frozenset[str] | None:
    """The ids of the rows that a run is about (--rows); None: all of INPUT, or the file is no longer there."""
    file = str(said.get("rows") or "")
    return picked_ids(file, shape.output_key, shape.rows.id_key) if os.path.isfile(file) else None


def make_tables(out: Path) -> Counter[str]:
    """Write results.jsonl and failures.jsonl. Rows without a result have the status "pending".

    Returns:
        rows by their status.

    Raises:
        RunFolderError: it is no run folder. SettingsError: INPUT cannot be read. DiskError.
    """
    said = about(out)
    settings, given = said["settings"], str(said.get("input", ""))
    if not (is_on_hub(given) or is_stored(given)) and not Path(given).exists() and "*" not in given:
        raise RunFolderError(f"RUN {out}: its INPUT {given} is no longer there; the table has the rows of it")
    shape = Shape.of_run(out, settings)
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
        ours = True
    except Timeout:  # a run is at work, and has made the place for temporary files
        ours = False
    except OSError as error:
        raise DiskError(f"cannot write {out}: {error.strerror}") from None
    try:
        (out / artifacts.PARTIAL).mkdir(exist_ok=True)
        with closing(Journal(out / JOURNAL, read_only=True)) as journal:
            rows = read(given, int(said.get("limit") or 0))
            return write_partial_tables(shape, rows, journal, only_of(said, shape))
    except OSError as error:
        raise DiskError(f"cannot write the table of {out}: {error.strerror}") from None
    finally:
        if ours:
            artifacts.remove_partial(out)
            lock.release()
