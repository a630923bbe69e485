"""The folder of a measurement: which cells are done. A cell is one figure or comparison with its name and facts."""

from __future__ import annotations

import json
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ATTEMPTS = 2
"""How often a cell is tried."""


class State:
    """Args:
    folder: --out.
    deadline: time.monotonic() after which no new cell begins.
    """

    def __init__(self, folder: Path, deadline: float = float("inf")):
        self.folder = folder
        self.deadline = deadline
        (folder / "cells").mkdir(parents=True, exist_ok=True)

    def cell(self, part: str, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Measure a cell unless it is done. Errors are kept as its result, once it has been tried often enough.

        Returns:
            The result; None if there is no time left.
        """
        found = self.read(part, name)
        if found is not None and (found["status"] != "failed" or found["attempts"] >= ATTEMPTS):
            return found
        if time.monotonic() > self.deadline:
            return None
        attempts = found["attempts"] + 1 if found is not None else 1
        base = {"part": part, "name": name, "attempts": attempts}
        # What ends the process must not be tried for ever.
        self._write(base | {"status": "failed", "error": "the process ended while it was measured"})
        started = time.monotonic()
        try:
            result = {"status": "done", **measure()}
        except Exception as error:
            text = " ".join(str(error).split())[:600]
            where = traceback.format_exc(limit=-3)
            result = {"status": "failed", "error": f"{type(error).__name__}: {text}", "traceback": where}
        result = base | result | {"took_s": round(time.monotonic() - started, 2)}
        self._write(result)
        print(f"  {part}: {name}: {brief(result)}", flush=True)
        return result

    def read(self, part: str, name: str) -> dict[str, Any] | None:
        path = self._path(part, name)
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    def cells(self) -> Iterator[dict[str, Any]]:
        """All that there are, in the order in which they were measured."""
        for path in sorted((self.folder / "cells").glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            yield json.loads(path.read_text("utf-8"))

    def finish(self, part: str) -> None:
        """Nothing of this part is left to do."""
        (self.folder / f"{_file(part)}.done").touch()

    def is_finished(self, part: str) -> bool:
        return (self.folder / f"{_file(part)}.done").exists()

    def _path(self, part: str, name: str) -> Path:
        return self.folder / "cells" / f"{_file(part)}--{_file(name)}.json"

    def _write(self, cell: dict[str, Any]) -> None:
        path = self._path(cell["part"], cell["name"])
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(cell, indent=1) + "\n", "utf-8")
        os.replace(partial, path)


def brief(cell: dict[str, Any]) -> str:
    """One line for the terminal."""
    if cell["status"] == "failed":
        return "failed: " + cell["error"][:160]
    left_out = ("part", "name", "status", "attempts", "took_s")
    facts = {key: value for key, value in cell.items() if key not in left_out and not isinstance(value, (dict, list))}
    return ", ".join(f"{key} {value}" for key, value in facts.items())[:200] or cell["status"]


def _file(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", name)
