"""Runs an operator over one part of its table at a time. Does not know operators.

Our own operators write intermediate tables and do not need this: without it more of their rows are in progress.
"""

from __future__ import annotations

from typing import Any

from fastgen.dataflow.core import OperatorABC, WrapperABC
from fastgen.dataflow.utils.storage import DummyStorage


class BatchWrapper(WrapperABC):
    """Args: start_batch: the first part to run; batch_size: rows per part; batch_cache: whether the table of each part
    is also a file in the storage's folder."""

    def __init__(
        self, operator: OperatorABC, start_batch: int = 0, batch_size: int = 32, batch_cache: bool = False
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: must be at least 1")
        self._operator, self._batch_size, self._batch_cache = operator, batch_size, batch_cache
        self.start_batch = start_batch

    def run(self, storage: Any, *args: Any, **kwargs: Any) -> None:
        """Run the operator with these arguments on each part, and write the table of all parts."""
        rows = storage.read("dict")
        part = DummyStorage()
        if self._batch_cache:
            part = DummyStorage(storage.cache_path, storage.file_name_prefix, storage.cache_type)
        done: list[dict] = []
        for number in range(self.start_batch, -(-len(rows) // self._batch_size)):
            part.set_data(rows[number * self._batch_size : (number + 1) * self._batch_size])
            if self._batch_cache:
                part.set_file_name_prefix(f"{storage.file_name_prefix}_step{storage.operator_step}_batch{number}")
            self._operator.run(part, *args, **kwargs)
            done += part.read("dict")
        storage.write(done)
