"""For callers in Python, who get a result for every row, with its row: also for rows that an earlier run did, and for
rows that the user had filled in. Does not know how rows are run."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec.structs import replace

from fastgen.config.settings import Settings
from fastgen.errors import InputError
from fastgen.input.readers.rows import Row, is_stored
from fastgen.input.requests import Prefilled
from fastgen.output.row_spool import RowSpool, SpooledRow
from fastgen.scheduler.triage import Skipped
from fastgen.types import Done, Failed, ImageParams, Result, TextParams


class AllRows:
    """Args: spool: has the rows of the run, and finds them by id."""

    def __init__(self, settings: Settings, spool: RowSpool):
        self._settings = settings
        self._spool = spool

    def told(self, item: Result | Skipped | Prefilled) -> Result:
        """The result as callers get it: with its row, and with the folder where its paths start. Raises DiskError."""
        row = _fields(self._spool.take(item.result.id if isinstance(item, Skipped) else item.id))
        if isinstance(item, Prefilled):
            return self._kept(item.id, row)
        result, earlier = (item.result, True) if isinstance(item, Skipped) else (item, False)
        return replace(result, row=row, folder=self._folder(result), earlier=earlier)

    def _folder(self, result: Result) -> str:
        """Where the files of a result are: an earlier run, or another machine, leaves them in object storage alone."""
        run = self._settings.run
        if not run.store or isinstance(result, Failed) or all(os.path.exists(f"{run.out}/{p}") for p in result.paths):
            return run.out
        return run.store

    def _kept(self, id: str, row: dict) -> Done:
        """What the user had filled in, as a result that no backend made."""
        settings, value = self._settings, row.get(self._settings.rows.output_key)
        words = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        text = settings.task == "caption"
        return Done(
            id=id,
            backend="",
            model="",
            paths=() if text else tuple(path for path in words if isinstance(path, str)),
            text=value if text and isinstance(value, str) else "",
            params=TextParams(0, 0.0, 0) if text else ImageParams(0, 0, 0, 0.0, 0, 0),
            seconds=0.0,
            attempts=0,
            row=row,
            folder=_start(settings),
            earlier=True,
        )


def _fields(row: SpooledRow | None) -> dict:
    if row is None:
        return {}
    try:
        return Row(row.number, row.raw).fields()
    except InputError:
        return {"line": row.raw.decode("utf-8", "replace")}


def _start(settings: Settings) -> str:
    """Where the paths start that a user wrote."""
    if settings.rows.image_root:
        return settings.rows.image_root
    if is_stored(settings.run.input):
        return settings.run.input.rpartition("/")[0]
    given = Path(settings.run.input)
    return os.path.abspath(given if given.is_dir() else given.parent)
