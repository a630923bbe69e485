"""The results of a run folder as a data set of another format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from fastgen.errors import RunFolderError, SettingsError
from fastgen.output.writers.records import Record, Records

FORMATS = {
    "parquet": "fastgen.output.writers.parquet_dataset:write",
    "webdataset": "fastgen.output.writers.webdataset:write",
    "imagefolder": "fastgen.output.writers.imagefolder:write",
    "hf": "fastgen.output.writers.parquet_dataset:write_for_datasets",
}
"""Format -> the function that takes records and a folder, and returns how many files or records it wrote."""


def export(run: Path, to: str, folder: Path, keep_failed: bool = False) -> int:
    """Write the results of a run into a folder.

    Args:
        to: one of `FORMATS`.
        keep_failed: whether rows without a result are records too, without a picture.

    Raises:
        SettingsError, RunFolderError, DiskError.
    """
    if to not in FORMATS:
        raise SettingsError(f"--to {to}: one of {', '.join(FORMATS)}")
    records = Records(run, keep_failed)
    if folder.exists() and (not folder.is_dir() or ((folder / "run.json").exists() or folder.samefile(run))):
        raise RunFolderError(f"-o {folder}: is a run folder or no folder; choose another one")
    module, _, name = FORMATS[to].partition(":")
    write: Callable[[Iterable[Record], Path], int] = getattr(import_module(module), name)
    return write(records, folder)
