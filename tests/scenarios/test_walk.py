"""How far a row travels: the files of the main process in which a function holds the row, or what becomes of it."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import fastgen
from fastgen.scheduler.run import Run

PACKAGE = str(Path(fastgen.__file__).parent)
OF_A_ROW = {"Row", "Identity", "SpooledRow", "Request", "Bucket", "Batch", "Done", "Failed"}
MOST_FILES = 20
MOST_FILES_PER_ROW = 23


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


def test_few_files_do_anything_for_every_row(settings, rows_file):
    """Whatever they hold. What is done once per batch or per run does not count."""

    def entered(count: int) -> Counter[str]:
        entered: Counter[str] = Counter()

        def watch(frame, event, result):
            file = frame.f_code.co_filename
            if event == "call" and file.startswith(PACKAGE):
                entered[file.removeprefix(PACKAGE), frame.f_code.co_name] += 1

        rows = rows_file([{"prompt": "a"}] * count)
        run = Run(settings("t2i", rows, batch_size=32, out=str(rows.parent / f"out-{count}")))
        sys.setprofile(watch)
        try:
            assert len(list(run.results())) == count
        finally:
            sys.setprofile(None)
        return entered

    few, many = entered(32), entered(96)
    names = sorted({file for (file, function), count in many.items() if count - few[file, function] >= 64})
    assert 10 < len(names) <= MOST_FILES_PER_ROW, names
