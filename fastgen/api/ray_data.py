"""For Ray Data: `ds.map_batches(fastgen.ray.Worker, ...)` makes images or captions of the rows of a dataset.

    ds = ray.data.read_parquet("prompts/")
    how = {"task": "t2i", "out": "/shared/run", "model": "klein"}
    ds = ds.map_batches(fastgen.ray.Worker, fn_constructor_kwargs=how, batch_size=256, concurrency=4, num_gpus=1)
    ds.write_parquet("made/")

Each actor opens an engine of its own on the GPUs that Ray gives it, and keeps it for all of its batches. Which rows
there are, where, and what is tried again is Ray Data's affair. A batch has a run folder that is named by what it says,
so a batch that comes again, after a kill or in the next run of the same program, makes only what is missing.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock

from fastgen.api import Session
from fastgen.config.settings import OUTPUT_KEYS
from fastgen.errors import SettingsError
from fastgen.input import storage
from fastgen.resolver import resolve
from fastgen.types import Task

STATUS, ERROR = "fastgen_status", "fastgen_error"
"""Columns that each row gets besides its result: done, failed or kept, and why there is no result."""
RESULTS = "results.jsonl"


class Worker:
    """Made once per actor, and called with each batch. One row in, one row out, in the same order: the columns of the
    batch, the result, `fastgen_status` and `fastgen_error`. A row that fails is marked, and the others go on.

    The result is a list of absolute paths (t2i, edit; empty if the row failed) or a text (caption; None if it failed;
    with a schema its JSON).

    Args:
        task: t2i, edit or caption.
        out: folder for the run folders of the batches; all machines must see it.
        flags: as of `fastgen.resolve`.

    Raises:
        SettingsError: something cannot be honoured.
        EngineError, DiskError: when called: the batch cannot be finished. What is done is safe, and the batch may come
            again.
    """

    def __init__(self, task: Task, out: str, **flags: Any) -> None:
        if task not in get_args(Task):
            raise SettingsError(f"task: must be t2i, edit or caption, not {task}")
        if storage.is_address(out):
            raise SettingsError(f"out {storage.address(out)}: must be a folder on a disk that all machines share")
        self._task, self._out, self._flags = task, Path(out).expanduser(), flags
        self._key = str(flags.get("output_key") or OUTPUT_KEYS[task])
        self._session = Session()
        resolve(task, None, out=self._out / "none", **flags)  # what is wrong is said before the first batch

    def __call__(self, batch: Any) -> Any:
        """Args: batch: as Ray Data gives it: a dict of numpy arrays, a pandas.DataFrame or a pyarrow.Table."""
        rows = _rows(batch)
        if not rows:
            return batch
        folder = self._out.absolute() / _name(rows)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # an equal batch of another actor waits, and finds this one done
            settings = resolve(self._task, None, out=folder, **self._flags)
            for _ in self._session.generate(settings, rows=rows):
                pass
            with (folder / RESULTS).open("rb") as table:
                made = [self._columns(json.loads(line), folder) for line in table]
        return _with(batch, {name: [columns[name] for columns in made] for name in (self._key, STATUS, ERROR)})

    def _columns(self, line: dict, folder: Path) -> dict[str, Any]:
        """What a row gets. `line`: that of the table."""
        about = line["fastgen"]
        result = line.get(self._key) if about["status"] != "failed" else None
        if self._task != "caption":
            result = [str(folder / path) for path in result or ()]
        elif result is not None and not isinstance(result, str):  # with a schema
            result = json.dumps(result, ensure_ascii=False)
        return {self._key: result, STATUS: about["status"], ERROR: (about.get("error") or {}).get("message")}


def _rows(batch: Any) -> list[dict]:
    if isinstance(batch, dict):
        names = list(batch)
        return [dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    return batch.to_pylist() if hasattr(batch, "to_pylist") else batch.to_dict("records")


def _name(rows: list[dict]) -> str:
    """A name for the folder of a batch, by what its rows say."""
    said = json.dumps(rows, sort_keys=True, default=_plain)
    return f"batch-{blake2b(said.encode(), digest_size=8).hexdigest()}"


def _plain(value: Any) -> Any:
    """A value of a row that is not JSON: a number or an array of numpy, bytes, an image."""
    if hasattr(value, "tolist"):
        return value.tolist()
    data = value.tobytes() if hasattr(value, "tobytes") else value if isinstance(value, bytes) else repr(value).encode()
    return blake2b(data, digest_size=16).hexdigest()


def _with(batch: Any, columns: dict[str, list]) -> Any:
    """The batch with more columns, in its own form. One that is there already is replaced."""
    if isinstance(batch, dict):
        import numpy

        arrays = {name: numpy.empty(len(values), object) for name, values in columns.items()}
        for name, values in columns.items():
            for number, value in enumerate(values):  # one by one: lists of equal length would become two dimensions
                arrays[name][number] = value
        return {**batch, **arrays}
    if hasattr(batch, "to_pylist"):
        import pyarrow

        kept = batch.drop_columns([name for name in columns if name in batch.column_names])
        for name, values in columns.items():
            kind = pyarrow.list_(pyarrow.string()) if any(isinstance(value, list) for value in values) else None
            kept = kept.append_column(name, pyarrow.array(values, kind if kind is not None else pyarrow.string()))
        return kept
    import pandas

    return batch.assign(**{name: pandas.Series(values, batch.index, object) for name, values in columns.items()})
