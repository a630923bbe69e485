"""Pictures that another program has made for a table's rows: DataFlow-MM's own operators leave half-done tables, and go
on from them. So does this. Knows rows by the columns that say what is to be made, never by their place.

What was found is noted beside the table, because the next table here takes the place of the one that it was in.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from fastgen.dataflow import get_logger
from fastgen.dataflow.operators.core_vision.generate.rows import done


class Kept:
    """Args: output: the column with the pictures; inputs: the columns that tell a row from another."""

    def __init__(self, storage: Any, output: str, inputs: tuple[str, ...]):
        self._output, self._inputs = output, tuple(dict.fromkeys(name for name in inputs if name != output))
        self._cells: dict[str, deque[list]] = {}
        self._taken = 0
        self._note: Path | None = None
        if not hasattr(storage, "read_foreign"):
            return
        table = Path(storage._path(storage.operator_step + 1))
        self._note = table.parent / ".fastgen" / f"{table.name}.{output}.kept.jsonl"
        for digest, cell in self._known():
            self._cells.setdefault(digest, deque()).append(cell)
        found = [(self._digest(row), row[output]) for row in _foreign(storage) if done(row.get(output))]
        fresh = [(digest, cell) for digest, cell in found if cell not in self._cells.get(digest, ())]
        if fresh:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            with self._note.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(one) + "\n" for one in fresh)
        for digest, cell in fresh:
            self._cells.setdefault(digest, deque()).append(cell)

    def take(self, row: dict) -> list | None:
        """The cell of a row for which there are pictures."""
        cells = self._cells.get(self._digest(row)) if self._cells else None
        while cells:
            cell = cells.popleft()
            if all(isinstance(path, str) and os.path.isfile(path) for path in cell):
                self._taken += 1
                return cell
        return None

    def say(self) -> None:
        if self._taken:
            get_logger().info(
                "%d rows have images from a table that another program wrote; they are kept. Delete %s to make them "
                "again",
                self._taken,
                self._note,
            )

    def _known(self) -> Iterator[tuple[str, list]]:
        if self._note is None or not self._note.exists():
            return
        for line in self._note.read_bytes().splitlines():
            try:
                digest, cell = json.loads(line)
            except ValueError:  # cut short by a kill
                continue
            yield digest, cell

    def _digest(self, row: dict) -> str:
        told = {name: row[name] for name in self._inputs if row.get(name) not in (None, "", [])}
        return blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=10).hexdigest()


def _foreign(storage: Any) -> list[dict]:
    try:
        return storage.read_foreign()
    except (ValueError, OSError) as error:
        get_logger().warning("the table of an earlier program cannot be read, so all rows are made: %s", error)
        return []
