"""Which tables were written here: kept beside them, in `.fastgen/tables.json`, by size and time. So a table that
another program left is told from one of our own. Knows nothing of what is in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

RECORD = ".fastgen/tables.json"
KEPT = 2
"""Stamps of a table that are remembered: a kill may come just before the newer one takes the older one's place."""


def note(path: str, temporary: str) -> None:
    """The finished file `temporary` is about to become the table `path`."""
    record = Path(path).parent / RECORD
    known = _read(record)
    name = os.path.basename(path)
    known[name] = [_stamp(temporary), *known.get(name, [])][:KEPT]
    record.parent.mkdir(parents=True, exist_ok=True)
    (fresh := record.with_suffix(".tmp")).write_text(json.dumps(known))
    os.replace(fresh, record)


def is_ours(path: str) -> bool:
    """Whether the table is as it was written here. Without a record it is where there are runs of an older version."""
    record = Path(path).parent / RECORD
    if not record.exists():
        return record.parent.is_dir()
    return _stamp(path) in _read(record).get(os.path.basename(path), [])


def _stamp(path: str) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


def _read(record: Path) -> dict[str, list[list[int]]]:
    try:
        known = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
