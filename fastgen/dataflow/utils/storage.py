"""Tables of a pipeline: the first is the user's file, each step writes one more. Knows no formats, nor what columns
mean."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastgen.dataflow.utils.formats import TYPES, as_frame, as_rows, from_hub, read, write

if TYPE_CHECKING:
    from pandas import DataFrame

ENDINGS = {"pkl": "pickle", "ndjson": "jsonl", "pq": "parquet"}


class DataFlowStorage(ABC):
    """Where an operator reads its table and leaves the next one."""

    @abstractmethod
    def read(self, output_type: Literal["dataframe", "dict"] = "dataframe") -> DataFrame | list[dict]: ...

    @abstractmethod
    def write(self, data: DataFrame | list[dict]) -> Any: ...


class FileStorage(DataFlowStorage):
    """Tables as files: `first_entry_file_name`, then `{cache_path}/{file_name_prefix}_step{n}.{cache_type}`.

    The first may also be `hf:{dataset}:{config}:{split}` or `ms:{dataset}:{split}`, with the library for it installed.
    """

    def __init__(
        self,
        first_entry_file_name: str,
        cache_path: str = "./cache",
        file_name_prefix: str = "dataflow_cache",
        cache_type: Literal["json", "jsonl", "csv", "parquet", "pickle"] = "jsonl",
    ):
        if cache_type not in TYPES:
            raise ValueError(f"cache_type {cache_type!r}: one of {', '.join(TYPES)}")
        self.first_entry_file_name = os.fspath(first_entry_file_name)
        self.cache_path = os.fspath(cache_path)
        self.file_name_prefix = file_name_prefix
        self.cache_type = cache_type
        self.operator_step = -1

    def step(self) -> FileStorage:
        self.operator_step += 1
        return self

    def reset(self) -> FileStorage:
        self.operator_step = -1
        return self

    @property
    def folder(self) -> str:
        """Where relative paths in the first table start."""
        return os.path.dirname(os.path.abspath(self.first_entry_file_name)) if not self._is_hub else os.getcwd()

    def get_keys_from_dataframe(self) -> list[str]:
        return list(self.read().columns)

    def read(self, output_type: Literal["dataframe", "dict"] = "dataframe") -> DataFrame | list[dict]:
        """The table of this step.

        Raises:
            ValueError: before `step()`, or an unknown `output_type`.
            SettingsError: no such file, or one that cannot be read as a whole.
        """
        if output_type not in ("dataframe", "dict"):
            raise ValueError(f"output_type {output_type!r}: 'dataframe' or 'dict'")
        if self.operator_step < 0:
            raise ValueError("step() comes before read() and write()")
        if self.operator_step == 0 and self._is_hub:
            rows = from_hub(self.first_entry_file_name)
        elif self.operator_step == 0:
            ending = Path(self.first_entry_file_name).suffix.lower().lstrip(".")
            rows = read(self.first_entry_file_name, ENDINGS.get(ending, ending))
        else:
            rows = read(self._path(self.operator_step), self.cache_type)
        return rows if output_type == "dict" else as_frame(rows)

    def write(self, data: DataFrame | list[dict]) -> str:
        """Write the next step's table, whole or not at all; returns its path."""
        path = self._path(self.operator_step + 1)
        os.makedirs(self.cache_path, exist_ok=True)
        temporary = f"{path}.tmp"
        try:
            write(as_rows(data), temporary, self.cache_type)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        return path

    @property
    def _is_hub(self) -> bool:
        return self.first_entry_file_name.startswith(("hf:", "ms:"))

    def _path(self, step: int) -> str:
        return os.path.join(self.cache_path, f"{self.file_name_prefix}_step{step}.{self.cache_type}")


class DummyStorage(DataFlowStorage):
    """A table in memory; with a `cache_path`, what is written is also a file there."""

    def __init__(
        self, cache_path: str | None = None, file_name_prefix: str | None = None, cache_type: str | None = None
    ):
        self.cache_path = cache_path
        self.file_name_prefix = file_name_prefix
        self.cache_type = cache_type
        self._rows: list[dict] | None = None

    def set_data(self, data: DataFrame | list[dict]) -> None:
        self._rows = as_rows(data)

    def set_file_name_prefix(self, file_name_prefix: str) -> None:
        self.file_name_prefix = file_name_prefix

    def step(self) -> DummyStorage:
        return self

    def reset(self) -> DummyStorage:
        return self

    def read(self, output_type: Literal["dataframe", "dict"] = "dataframe") -> DataFrame | list[dict]:
        if self._rows is None:
            raise ValueError("set_data() comes before read()")
        return [dict(row) for row in self._rows] if output_type == "dict" else as_frame(self._rows)

    def write(self, data: DataFrame | list[dict]) -> str | None:
        self._rows = as_rows(data)
        if not self.cache_path:
            return None
        kind = self.cache_type or "jsonl"
        storage = FileStorage("", self.cache_path, self.file_name_prefix or "dataflow_cache", kind)
        storage.operator_step = 0
        return storage.write(self._rows)
