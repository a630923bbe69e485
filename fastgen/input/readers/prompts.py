"""Text files with one prompt per line."""

from __future__ import annotations

from collections.abc import Iterator

from fastgen.input.readers import source
from fastgen.input.readers.rows import Row, written
from fastgen.input.readers.source import Source


def read(file: Source) -> Iterator[Row]:
    """One row per line that is not blank."""
    for number, line in enumerate(file.lines(), 1):
        if len(line) > source.MAX_LINE:
            yield Row(number, line[:1000], file.too_long)
            continue
        try:
            text = line.decode().strip()
        except UnicodeDecodeError as error:
            yield Row(number, line.strip(), f"not UTF-8 at byte {error.start}; save the file as UTF-8")
            continue
        if text:
            yield Row(number, written({"prompt": text}))
