"""Tables as text: .csv and .tsv with a header. Cells are text; numbers and lists become JSON's own types."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

from fastgen.errors import SettingsError
from fastgen.input.readers import formats, source
from fastgen.input.readers.rows import Row, written
from fastgen.input.readers.source import Source

NUMBERS = frozenset(
    (
        *("width", "height", "steps", "guidance", "seed", "n", "max_tokens", "temperature"),
        *("num_inference_steps", "guidance_scale", "num_images_per_prompt", "true_cfg_scale"),
    )
)
"""Columns that fastgen reads as numbers."""
FLAGS = frozenset(("keep_turns", "use_variations", "text_only"))
"""Columns that fastgen reads as true or false."""
UNCLOSED = (
    "a quote is opened and never closed, so the row goes on to the end of the file; close it. A quote inside a cell is "
    'written ""'
)
_NUMBER = re.compile(r"-?\d{1,18}(\.\d+)?([eE][-+]?\d{1,3})?")


def read(file: Source) -> Iterator[Row]:
    """One row per line below the header; a cell in quotes may have line breaks. An empty cell is null, and a list or
    object in JSON is one. Raises SettingsError if there is no header."""
    csv.field_size_limit(source.MAX_LINE)
    texts = _texts(file)
    first = next((line for line in texts if line.strip()), "")
    tabs = formats.plain(Path(file.address)).suffix.lower() == ".tsv"
    cut = "\t" if tabs else next((mark for mark in (",", ";", "\t") if mark in first), ",")
    ended: list[bool] = []
    lines = csv.reader(_until(ended, first, texts), delimiter=cut)
    try:
        names = [name.strip() for name in next(lines, [])]
    except csv.Error as error:
        raise SettingsError(f"INPUT {file.address}: the header is not valid CSV: {_plain(error)}") from None
    if not any(names):
        raise SettingsError(f"INPUT {file.address}: holds no rows; its first line must name the columns")
    if twice := next((name for i, name in enumerate(names) if name and name in names[:i]), ""):
        raise SettingsError(f"INPUT {file.address}: two columns are called {twice!r}; rename one of them")
    number = 0
    while True:
        number += 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(number, b"", f"not valid CSV: {_plain(error)}")
            continue
        if cells and ended:  # the reader looked for more
            yield Row(number, written(dict(zip(names, cells, strict=False))), UNCLOSED)
        elif cells:
            yield _row(number, names, cells)
        else:
            number -= 1


def _row(number: int, names: list[str], cells: list[str]) -> Row:
    fields = {name: _value(name, cell) for name, cell in zip(names, cells, strict=False) if name}
    problem = ""
    if len(cells) > len(names):
        problem = f"{len(cells)} cells, but the header names {len(names)}; put cells that have the separator in quotes"
    fields |= dict.fromkeys(names[len(cells) :])
    if not problem and any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
        problem = "not UTF-8; save the file as UTF-8"
    return Row(number, written(fields), problem)


def _value(name: str, cell: str) -> object:
    """The value of a cell."""
    if not cell:
        return None
    if name in NUMBERS and _NUMBER.fullmatch(cell.strip()):
        return json.loads(cell.strip()) if not re.match(r"-?0\d", cell.strip()) else int(float(cell))
    if name in FLAGS and cell.strip().lower() in ("true", "false"):
        return cell.strip().lower() == "true"
    if cell[0] in "[{" and cell[-1] in "]}":
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _texts(file: Source) -> Iterator[str]:
    for line in file.lines():
        yield line.decode("utf-8", "surrogateescape")


def _until(ended: list[bool], first: str, rest: Iterator[str]) -> Iterator[str]:
    """All lines. `ended` is no longer empty once somebody asks for more than there are."""
    yield first
    yield from rest
    ended.append(True)


def _plain(error: csv.Error) -> str:
    """What is wrong, and the fix."""
    if "new-line character" in str(error):
        return (
            "a carriage return stands in a cell without quotes; put the cell in quotes, or save it with other line ends"
        )
    return f"{error}; fix the line"
