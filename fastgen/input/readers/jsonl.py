"""Files with one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterator

from fastgen.input.readers import json_file, source
from fastgen.input.readers.rows import Row
from fastgen.input.readers.source import Source


def read(file: Source) -> Iterator[Row]:
    """One row per line that is not blank. A line that is broken only fails its own row. If the first line is a bracket
    alone, the file holds JSON over several lines per row, and is read as a whole."""
    first = True
    for number, line in enumerate(file.lines(), 1):
        if len(line) > source.MAX_LINE:
            yield Row(number, line[:1000], file.too_long)
        elif line := line.strip():
            if first and line in (b"[", b"{"):
                yield from json_file.read_several(file)
                return
            yield Row(number, line)
        first = first and not line
