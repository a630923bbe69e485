"""Records which tables were written here: size and time of each, in `.fastgen/tables.json` next to them. This tells a
table of another program from one of our own. Does not know their content."""

from __future__ import annotations

import json
import os
from pathlib import Path

RECORD = ".fastgen/tables.json"
KEPT = 2
"""Stamps per table that are remembered: a kill may come just before the newer table replaces the older one."""


def note(path: str, temporary: str) -> None:
    """Record that the finished file `temporary` is about to become the table `path`."""
    record = Path(path).parent / RECORD
    known = _read(record)
    name = os.path.basename(path)
    known[name] = [_stamp(temporary), *known.get(name, [])][:KEPT]
    record.parent.mkdir(parents=True, exist_ok=True)
    (fresh := record.with_suffix(".tmp")).write_text(json.dumps(known))
    os.replace(fresh, record)


def is_ours(path: str) -> bool:
    """Whether the table is unchanged since it was written here. Without a record, True if there are runs of an older
    version."""
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
