"""How far a row travels: the files of the main process in which a function holds the row, or what becomes of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import fastgen
from fastgen.scheduler.run import Run

PACKAGE = str(Path(fastgen.__file__).parent)
OF_A_ROW = {"Row", "Identity", "SpooledRow", "Request", "Bucket", "Batch", "Done", "Failed"}
MOST_FILES = 20


def holds(value: Any, depth: int = 0) -> bool:
    if type(value).__name__ in OF_A_ROW:
        return True
    if depth < 2 and isinstance(value, list | tuple | dict):
        inside = value.values() if isinstance(value, dict) else value
        return any(holds(one, depth + 1) for one in list(inside)[:5])
    return False


def test_a_row_crosses_few_files(settings, rows_file):
    crossed: set[str] = set()

    def watch(frame, event, result):
        file = frame.f_code.co_filename
        if event not in ("call", "return") or not file.startswith(PACKAGE) or file in crossed:
            return
        if any(map(holds, frame.f_locals.values())) or (event == "return" and holds(result)):
            crossed.add(file)

    run = Run(settings("t2i", rows_file([{"prompt": "a"}])))
    sys.setprofile(watch)
    try:
        done = list(run.results())
    finally:
        sys.setprofile(None)
    names = sorted(file.removeprefix(PACKAGE) for file in crossed)
    assert len(done) == 1 and 10 < len(names) <= MOST_FILES, names
