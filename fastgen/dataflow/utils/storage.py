"""Tables of a pipeline: the first is the user's file, and each step writes one more. Does not know formats or what
columns mean."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastgen.dataflow.utils import written
from fastgen.dataflow.utils.formats import TYPES, as_frame, as_rows, from_hub, nulls_of, read, refuse_pickle, write

if TYPE_CHECKING:
    from pandas import DataFrame

ENDINGS = {"pkl": "pickle", "ndjson": "jsonl", "pq": "parquet"}


class DataFlowStorage(ABC):
    """Where an operator reads its table and writes the next one."""

    @abstractmethod
    def read(self, output_type: Literal["dataframe", "dict"] = "dataframe") -> DataFrame | list[dict]: ...

    @abstractmethod
    def write(self, data: DataFrame | list[dict]) -> Any: ...


class FileStorage(DataFlowStorage):
    """Tables as files: `first_entry_file_name`, then `{cache_path}/{file_name_prefix}_step{n}.{cache_type}`.

    The first may also be `hf:{dataset}:{config}:{split}` or `ms:{dataset}:{split}`, if the library for it is installed.

    Args:
        allow_pickle: whether tables may be pickle files, which can run any program when they are read.
    """

    def __init__(
        self,
        first_entry_file_name: str,
        cache_path: str = "./cache",
        file_name_prefix: str = "dataflow_cache",
        cache_type: str = "jsonl",
        *,
        allow_pickle: bool = False,
    ):
        if cache_type not in TYPES:
            raise ValueError(f"cache_type {cache_type!r}: one of {', '.join(TYPES)}")
        refuse_pickle(f"cache_type {cache_type!r}", cache_type, allow_pickle)
        self.first_entry_file_name = os.fspath(first_entry_file_name)
        self.cache_path = os.fspath(cache_path)
        self.file_name_prefix = file_name_prefix
        self.cache_type = cache_type
        self.allow_pickle = allow_pickle
        self.operator_step = -1
        self._nulls: frozenset[str] = frozenset()
        """Columns of the last table that was read in which some row has null."""

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

    # Names that users' own operators expect.

    def _get_cache_file_path(self, step: int) -> str:
        """The table of a step; 0 is the first."""
        return self._path(step) if step else self.first_entry_file_name

    def _load_local_file(self, file_path: str, file_type: str) -> DataFrame:
        return as_frame(read(file_path, ENDINGS.get(file_type, file_type), self.allow_pickle))

    def get_keys_from_dataframe(self) -> list[str]:
        table = self.read("dataframe")
        assert not isinstance(table, list)
        return list(table.columns)

    def read(self, output_type: Literal["dataframe", "dict"] = "dataframe") -> DataFrame | list[dict]:
        """The table of this step.

        Raises:
            ValueError: before `step()`, or an unknown `output_type`.
            TableError: the file does not exist or cannot be read at all. It is also a ValueError.
        """
        if output_type not in ("dataframe", "dict"):
            raise ValueError(f"output_type {output_type!r}: 'dataframe' or 'dict'")
        if self.operator_step < 0:
            raise ValueError("call step() before read() and write()")
        if self.operator_step == 0 and self._is_hub:
            rows = from_hub(self.first_entry_file_name)
        elif self.operator_step == 0:
            ending = Path(self.first_entry_file_name).suffix.lower().lstrip(".")
            rows = read(self.first_entry_file_name, ENDINGS.get(ending, ending), self.allow_pickle)
        else:
            rows = read(self._path(self.operator_step), self.cache_type, self.allow_pickle)
        self._nulls = nulls_of(rows)
        return rows if output_type == "dict" else as_frame(rows)

    def read_foreign(self) -> list[dict]:
        """The rows of the next step's table, if it exists and was not written here."""
        path = self._path(self.operator_step + 1)
        if not os.path.exists(path) or written.is_ours(path):
            return []
        return read(path, self.cache_type, self.allow_pickle)

    def write(self, data: DataFrame | list[dict]) -> str:
        """Write the table of the next step, completely or not at all; returns its path."""
        path = self._path(self.operator_step + 1)
        os.makedirs(self.cache_path, exist_ok=True)
        temporary = f"{path}.tmp"
        try:
            write(as_rows(data, self._nulls), temporary, self.cache_type)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            written.note(path, temporary)
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
    """A table in memory. With a `cache_path`, what is written also goes into a file there."""

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
            raise ValueError("call set_data() before read()")
        return [dict(row) for row in self._rows] if output_type == "dict" else as_frame(self._rows)

    def write(self, data: DataFrame | list[dict]) -> str | None:
        self._rows = as_rows(data)
        if not self.cache_path:
            return None
        kind = self.cache_type or "jsonl"
        prefix = self.file_name_prefix or "dataflow_cache"
        storage = FileStorage("", self.cache_path, prefix, kind, allow_pickle=True)  # it is only written, never read
        storage.operator_step = 0
        return storage.write(self._rows)
