"""Parts of one run that are run apart (--shard I/N): where they are, how far they are, and how they become one folder.

    RUN/shards/2-of-3/    a run folder of its own, with the journal and the images of part 2
    RUN/journal.jsonl     after a merge: the results of all parts, with paths that begin with shards/

So a merged RUN is a run folder like any other. Knows no rows and starts nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout
from msgspec.structs import replace

from fastgen.errors import DiskError, RunFolderError
from fastgen.output import artifacts
from fastgen.output.journal import Journal, with_checksum
from fastgen.output.run_dir import JOURNAL, LOCK, LOCK_S, RUN
from fastgen.output.writers import from_journal
from fastgen.types import Done, Result

FOLDER = "shards"
_NAME = re.compile(r"(\d+)-of-(\d+)")
_AT_WORK = ("starting", "running")
_encode = msgspec.json.Encoder().encode


class Part(msgspec.Struct, frozen=True):
    """Args: path: its folder; number: from 1 to `of`."""

    path: Path
    number: int
    of: int

    @property
    def at_work(self) -> bool:
        """Whether a process has it now."""
        return _is_claimed(self.path)

    @property
    def about(self) -> dict[str, Any]:
        """Its run.json. Raises RunFolderError."""
        return from_journal.about(self.path)


def _is_claimed(folder: Path) -> bool:
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)  # it may be another user's
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def folder(run: Path, number: int, of: int) -> Path:
    """The folder of one part."""
    return run / FOLDER / f"{number}-of-{of}"


def named(path: Path) -> tuple[int, int] | None:
    """(number, of) of the part whose folder this is; None if it is no part's."""
    found = _NAME.fullmatch(path.name) if path.parent.name == FOLDER else None
    return (int(found[1]), int(found[2])) if found else None


def parts(run: Path) -> list[Part]:
    """The parts of a run that have begun, in the order of their numbers."""
    found = [part for part in _folders(run) if (part.path / RUN).is_file()]
    return sorted(found, key=lambda part: (part.of, part.number))


def at_work(run: Path) -> list[Part]:
    """The parts of a run that processes have now, also those that have written nothing yet."""
    return [part for part in _folders(run) if part.at_work]


def _folders(run: Path) -> list[Part]:
    """All that have a folder, in any order."""
    if not os.path.isdir(run / FOLDER):  # Path.is_dir raises OSError for a name that is too long
        return []
    return [Part(path, *name) for path in (run / FOLDER).iterdir() if (name := named(path))]


def whole_at_work(run: Path) -> bool:
    """Whether a process runs all rows of this folder now; one that merges is none."""
    return _is_claimed(run) and (run / RUN).exists() and from_journal.about(run).get("state") in _AT_WORK


def are_merged(run: Path) -> bool:
    """Whether the journal of a run has what its parts have done."""
    journals = [part.path / JOURNAL for part in parts(run)]
    newest = max((path.stat().st_mtime_ns for path in journals if path.exists() and path.stat().st_size), default=0)
    return not newest or ((run / JOURNAL).exists() and newest <= (run / JOURNAL).stat().st_mtime_ns)


def all_finished(run: Path, of: int) -> bool:
    """Whether all parts of this division have ended, each with a result for each of its rows."""
    ended = {part.number for part in parts(run) if part.of == of and part.about.get("state") == "finished"}
    return len(ended) == of


class Status(msgspec.Struct, frozen=True):
    """How far a part is."""

    part: Part
    state: str
    """As in run.json; "killed" if that says that it is at work and no process is."""
    counts: Counter[str]
    """done, failed: rows in its journal."""
    written: str
    """When its run.json was written last."""


def status(run: Path) -> list[Status]:
    """How far each part is. Raises RunFolderError: there are no parts."""
    found = parts(run)
    if not found:
        raise RunFolderError(f"RUN {run}: has no parts ({FOLDER}/1-of-N); they are made by --shard 1/N")
    said = []
    for part in found:
        about = part.about
        state = str(about.get("state", ""))
        if state in _AT_WORK:
            state = "running" if part.at_work else "killed"
        counts: Counter[str] = Counter()
        with closing(Journal(part.path / JOURNAL, read_only=True)) as journal:
            counts.update("done" if isinstance(result, Done) else "failed" for result in _newest(journal))
        said.append(Status(part, state, counts, str(about.get("written", ""))))
    return said


def merge(run: Path, patience_s: float = LOCK_S) -> Counter[str]:
    """Put the results of all parts into one journal and one table. Repeating it changes nothing.

    Args:
        patience_s: how long to wait for another process that uses the folder, such as the merge of another part.

    Returns:
        rows by their status: done, failed, kept, pending.

    Raises:
        RunFolderError: no parts, or parts of different runs, or the folder is in use. DiskError, SettingsError.
    """
    found = parts(run)
    if not found:
        raise RunFolderError(f"RUN {run}: has no parts ({FOLDER}/1-of-N); they are made by --shard 1/N")
    about = _common(run, found)
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=patience_s)
    except Timeout:
        raise RunFolderError(f"RUN {run}: another fastgen is using it; wait for it") from None
    except OSError as error:
        raise DiskError(f"cannot write {run}: {error.strerror}") from None
    try:
        artifacts.clear_partial(run)
        for name in (artifacts.IMAGES, artifacts.LOGS):
            (run / name).mkdir(exist_ok=True)
        if not (run / RUN).exists():
            _write_about(run, about | {"state": "stopped"})
        _write_journal(run, found)
        counts = from_journal.make_tables(run)
        state = "stopped" if counts["pending"] else "finished"
        _write_about(run, about | {"state": state, "counts": {"rows": sum(counts.values()), **counts}})
        artifacts.remove_partial(run)
        return counts
    except OSError as error:
        raise DiskError(f"cannot write {run}: {error.strerror}") from None
    finally:
        lock.release()


def _common(run: Path, found: list[Part]) -> dict[str, Any]:
    """What run.json of the whole says. Raises RunFolderError: the parts are not of one run."""
    known = [(part.path, part.about) for part in found]
    if (run / RUN).exists():
        known.append((run, from_journal.about(run)))
    path, first = known[0]
    for other, about in known[1:]:
        for name in ("settings", "input", "limit"):
            if about.get(name) != first.get(name):
                raise RunFolderError(
                    f"RUN {run}: {other.name} and {path.name} belong to different runs: {name} is "
                    f"{about.get(name)!r} and {first.get(name)!r}; move one of them away"
                )
    mine = {"counts", "engines", "error", "stages_seconds", "busy_seconds", "work", "notes", "pid", "outside_model"}
    return {name: value for name, value in first.items() if name not in mine}


def _write_about(run: Path, about: dict[str, Any]) -> None:
    artifacts.write(run, RUN, (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode())


def _write_journal(run: Path, found: list[Part]) -> None:
    """All results. Of the newest lines of a row that done comes last counts, so what is equal is kept where it is
    last."""
    last = {_key(result): number for number, result in enumerate(_all(run, found))}
    with artifacts.atomic(run, JOURNAL) as file:
        for kind in (False, True):
            for number, result in enumerate(_all(run, found)):
                if isinstance(result, Done) == kind and last.get(_key(result), number) == number:
                    file.write(with_checksum(_encode(result)))
    artifacts.sync_folder(run)


def _key(result: Result) -> int:
    return hash((result.id, result.content, getattr(result, "paths", None)))


def _all(run: Path, found: list[Part]) -> Iterator[Result]:
    """The newest results of RUN itself and of all parts, with paths from RUN; last those of who wrote last."""
    folders = [path for path in (run, *(part.path for part in found)) if (path / JOURNAL).exists()]
    for path in sorted(folders, key=lambda path: (path / JOURNAL).stat().st_mtime_ns):
        prefix = "" if path == run else f"{os.path.relpath(path, run)}/"
        with closing(Journal(path / JOURNAL, read_only=True)) as journal:
            for result in _newest(journal):
                if prefix and isinstance(result, Done):
                    result = replace(result, paths=tuple(prefix + name for name in result.paths))
                yield result


def _newest(journal: Journal) -> Iterator[Result]:
    return (result for result, newest in journal.results() if newest)
