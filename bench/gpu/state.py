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
HANGS_S = 300.0
"""A cell that was ended with its call after less than this was not slow: it began late."""
CUT_OFF = "the process ended while it was measured"


class State:
    """Args:
    folder: --out.
    deadline: time.monotonic() after which no new cell begins.
    """

    def __init__(self, folder: Path, deadline: float = float("inf")):
        self.folder = folder
        self.deadline = deadline
        (folder / "cells").mkdir(parents=True, exist_ok=True)

    def cell(
        self, part: str, name: str, measure: Callable[[], dict[str, Any]], needs_s: float = 0.0
    ) -> dict[str, Any] | None:
        """Measure a cell unless it is settled. Errors are kept as its result, once it has been tried often enough.

        Args:
            needs_s: about how long it takes; it does not begin if that is past the deadline.
        Returns:
            The result; None if there is no time left.
        """
        found = self.read(part, name)
        if found is not None and self.is_settled(part, name):
            return found
        if time.monotonic() + needs_s > self.deadline:
            return None
        attempts = found["attempts"] + 1 if found is not None else 1
        base = {"part": part, "name": name, "attempts": attempts}
        # What ends the process must not be tried for ever.
        self._write(base | {"status": "failed", "error": CUT_OFF})
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

    def is_settled(self, part: str, name: str) -> bool:
        """Whether a cell is measured, or has failed often enough."""
        found = self.read(part, name)
        return found is not None and (found["status"] != "failed" or found["attempts"] >= ATTEMPTS)

    def forgive(self, part: str) -> None:
        """The time of a call is over, and its process was ended: the cell that it measured meanwhile was not tried."""
        for cell in self.cells():
            if cell["part"] == part and cell.get("error") == CUT_OFF:
                path = self._path(part, cell["name"])
                if time.time() - path.stat().st_mtime < HANGS_S:
                    self._write(cell | {"attempts": cell["attempts"] - 1})

    def resume(self, results: Path) -> None:
        """Take over what is in the results.json of a call elsewhere, where it is not here."""
        known = json.loads(results.read_text("utf-8"))
        for cell in known["cells"]:
            if self.read(cell["part"], cell["name"]) is None:
                self._write(cell)
        for name in known["finished"]:
            (self.folder / name).touch()

    def finished(self) -> list[str]:
        """For `resume`: the files of the parts of which nothing is left to do."""
        return sorted(path.name for path in self.folder.glob("*.done"))

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
