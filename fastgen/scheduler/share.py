"""Which rows of INPUT are one part's (--shard I/N): every N-th row, without those that other parts have done.

Other parts matter only after N has changed, because the parts of one N share no row. Does not run anything.
"""

from __future__ import annotations

import json
from pathlib import Path

from fastgen.config.settings import Settings
from fastgen.errors import RunFolderError
from fastgen.input.identities import Identity
from fastgen.output import intact, shards
from fastgen.output.journal import Journal
from fastgen.output.run_dir import JOURNAL
from fastgen.types import Done


def refuse(settings: Settings) -> None:
    """Raise RunFolderError if the settings are not those of the other parts, or if a run of all rows does not know what
    parts have done; also what `refuse_others` raises."""
    refuse_others(settings)
    if settings.run.shard is None:
        run = Path(settings.run.out)
        if not settings.run.fresh and not shards.are_merged(run):
            raise RunFolderError(
                f"-o {run}: its parts (--shard) have done rows that the run of all rows would make again; type "
                f"fastgen merge {run} first"
            )
        return
    number, of = settings.run.shard
    fingerprint = json.loads(json.dumps(settings.fingerprint()))
    for part in shards.parts(_run(settings)):
        then, name = part.about["settings"], f"{part.number}/{part.of}"
        changed = [key for key in {**fingerprint, **then} if fingerprint.get(key) != then.get(key)]
        if changed and not settings.run.fresh:
            raise RunFolderError(
                f"--shard {number}/{of}: part {name} was run with another {', '.join(changed)}; use the same settings "
                "for all parts, or another folder with -o"
            )


def refuse_others(settings: Settings) -> None:
    """Raise RunFolderError if parts of another N are at work now. It is asked again once the own folder is claimed, so
    that of two that start at the same moment at least one is refused."""
    number, of = settings.run.shard or (1, 1)
    run = _run(settings) if settings.run.shard else Path(settings.run.out)
    if settings.run.shard and shards.whole_at_work(run):
        raise RunFolderError(f"--shard {number}/{of}: a run of all rows is at work in {run}; wait for it")
    for part in shards.at_work(run):
        name = f"{part.number}/{part.of}"
        if settings.run.shard is None:
            raise RunFolderError(f"-o {run}: part {name} is at work, and both would make the same rows; wait for it")
        if part.of != of:
            raise RunFolderError(
                f"--shard {number}/{of}: part {name} is at work, and both would make the same rows; wait for it, or "
                f"keep {part.of} parts"
            )


def _run(settings: Settings) -> Path:
    """The folder of the whole run."""
    return Path(settings.run.out).parent.parent


class Share:
    """Args: settings: whose run folder is that of a part; own: its journal, None: it has none yet."""

    def __init__(self, settings: Settings, own: Journal | None):
        self._number, self._of = settings.run.shard or (1, 1)
        self._own = own
        run = _run(settings)
        others = [run, *(part.path for part in shards.parts(run) if part.of != self._of)]
        others = [] if settings.run.fresh else others
        self._others = [(path, Journal(path / JOURNAL, read_only=True)) for path in others if (path / JOURNAL).exists()]

    def counts(self, number: int) -> bool:
        """Whether a row is one of every N-th that are this part's. `number`: that of the row, from 1."""
        return (number - self._number) % self._of == 0

    def has(self, number: int, identity: Identity) -> bool:
        """Whether a row belongs to this part: it is one of its rows, and no part of another N has done it."""
        if not self.counts(number):
            return False
        if self._own is not None and self._own.get(identity.id, identity.content) is not None:
            return True
        return not any(self._is_done(path, journal, identity) for path, journal in self._others)

    def _is_done(self, path: Path, journal: Journal, identity: Identity) -> bool:
        known = journal.get(identity.id, identity.content)
        if not isinstance(known, Done):
            return False
        return all(
            intact.is_intact(f"{path}/{name}", written)
            for name, written in zip(known.paths, known.files or (None,) * len(known.paths), strict=False)
        )

    def close(self) -> None:
        for _, journal in self._others:
            journal.close()
