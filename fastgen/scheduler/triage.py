"""Compares each row of INPUT with the journal: what is already done, what has to run, what cannot run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from fastgen.config.settings import Settings
from fastgen.errors import InputError
from fastgen.input import stamps
from fastgen.input.images import Places
from fastgen.input.picked import Picked
from fastgen.input.readers.rows import Row, RowReader
from fastgen.input.requests import Identity, Intake, Prefilled, input_paths
from fastgen.input.unread_fields import UnreadFields
from fastgen.output import artifacts, intact, names
from fastgen.output.journal import Journal
from fastgen.output.lookahead import Lookahead
from fastgen.output.mirror.listing import Listing, Trusted
from fastgen.output.names import Layout
from fastgen.output.row_spool import RowSpool
from fastgen.output.writers.tables import spooled
from fastgen.scheduler import failure_policy
from fastgen.scheduler.fetching import fetched
from fastgen.scheduler.share import Share
from fastgen.types import Done, Failed, FileStamp, Request, TextParams

SUFFIXES = ("png", "jpg", "webp")
_encode = msgspec.json.Encoder().encode


class Skipped(msgspec.Struct, frozen=True):
    """A row that already has a valid result: nothing is to be done."""

    result: Done | Failed


DONE_BEFORE = Skipped(Done("", "", "", (), TextParams(0, 0.0, 0), 0.0))
"""Some row that was done before."""


def triage(
    settings: Settings,
    reader: RowReader,
    journal: Journal | None,
    spool: RowSpool | None,
    warn: Callable[[str], None] = lambda message: None,
    unread: UnreadFields | None = None,
    out: str | None = None,
    layout: Layout | None = None,
    fetches: bool = False,
    share: Share | None = None,
    picked: Picked | None = None,
    stored: Listing | Trusted | None = None,
    brief: bool = False,
) -> Iterator[Request | Failed | Prefilled | Skipped | None]:
    """What to do with each row, in order, given the journal. None: the next row is not ready; ask again.

    A done row whose images are unchanged is skipped; so is a failed row, unless --retry-failed is given. Rows that
    failed as bad input are checked again each time; a fixed row becomes a Request. So do rows that a service turned
    away for a reason that was not their fault (`failure_policy.AGAIN`), and rows whose input images have changed.

    Args:
        reader: the rows, which are read once and each identified once.
        journal: None: nothing has been done yet.
        spool: gets every row for the tables; None: there will be none.
        warn: is called at the end with what became of earlier results.
        unread: if given, it is shown the fields of every row.
        fetches: whether images on servers are fetched; else their rows fail.
        layout, stored: how the run folder names its images; those that are in object storage.
        share, picked: which rows are run at all; None: all. brief: `DONE_BEFORE` may stand for the result of a row.
        out: the folder that keeps images that are inside the rows; None: the run folder.
    """
    intake = Intake(settings, warn if unread is None else unread.say_read, out)
    layout = layout or Layout()
    has_names = bool(settings.rows.name or layout.numbered or layout.folders)
    earlier = _Earlier(settings, journal, intake.places, stored) if journal else None
    try:
        parts, key = [part for part in (share, picked) if part is not None], settings.rows.output_key
        items = _of_this_run(reader, intake, parts)
        for ready in fetched(items, intake.places, key, warn) if fetches else items:
            if ready is None:
                yield None
                continue
            row, identity = ready
            _note(row, identity, unread, spool, key)
            if earlier and (before := earlier.skipped(identity, brief)):
                yield before
                continue
            item = intake.read(row, identity)
            if earlier and isinstance(item, Request) and item.task != "caption":
                item = earlier.named(item, _usual_stem(item, identity, settings, layout) if has_names else "")
            yield Skipped(item) if isinstance(item, Failed) and earlier and earlier.has(item, identity) else item
    finally:  # also for a run that is interrupted
        if unread is not None:
            unread.end()
        for message in (*(earlier.warnings() if earlier else ()), *(picked.warnings() if picked else ())):
            warn(message)


def _note(row: Row, identity: Identity, unread: UnreadFields | None, spool: RowSpool | None, output_key: str) -> None:
    """Raises DiskError."""
    if unread is not None:
        unread.note(identity.fields, identity.columns.values())
    if spool is not None:
        spool.add(spooled(row, identity, output_key))


def _of_this_run(reader: RowReader, intake: Intake, parts: Sequence[Share | Picked]) -> Iterator[tuple[Row, Identity]]:
    """The rows that are run at all. All are identified, because equal rows are told apart by their order."""
    for row in reader:
        identity = intake.identify(row)
        if not parts or all(part.has(row.number, identity) for part in parts):
            yield row, identity


def _usual_stem(item: Request, identity: Identity, settings: Settings, layout: Layout) -> str:
    own_id = item.id.partition("#")[0] != item.content
    return names.stem(item.id, own_id, item.row, item.image_params, identity.fields, settings.rows.name, layout)


class _Earlier:
    """The results of earlier runs for a row, judged by the files that exist now."""

    def __init__(self, settings: Settings, journal: Journal, places: Places, stored: Listing | Trusted | None):
        self._settings = settings
        self._stored = stored
        self._places = places
        self._journal = journal
        self._out = settings.run.out
        self._images = os.path.realpath(os.path.join(self._out, artifacts.IMAGES))
        self._ahead = Lookahead(self._out, journal.path, settings.task != "caption")
        self._damaged = self._changed = 0
        self._any = bool(journal.index or settings.rows.name)
        """Whether a file may belong to another row: something was committed before, or --name may give equal names."""
        self._taken: dict[int, int] | None = None
        """hash(prefix of file names) -> hash of the id that has them; None until it is needed."""

    def skipped(self, identity: Identity, brief: bool) -> Skipped | None:
        """The row's result if it is still valid; `brief`: `DONE_BEFORE` may stand for it."""
        if brief and self._is_done(identity):
            return DONE_BEFORE
        known = self._journal.get(identity.id, identity.content)
        return Skipped(known) if known and self._stands(known, identity) else None

    def has(self, failed: Failed, identity: Identity) -> bool:
        """Whether the row failed in the same way before."""
        return self._journal.get(identity.id, identity.content) == failed

    def _is_done(self, identity: Identity) -> bool:
        """Whether the row is known to be done with a short look. False means that it takes a longer one."""
        if identity.error:
            return False
        begins = b'{"status":"done","id":%b,' % _encode(identity.id)
        position = self._journal.newest_is(identity.id, begins, identity.content)
        return position is not None and self._ahead.found_intact(position)

    def _stands(self, known: Done | Failed, identity: Identity) -> bool:
        """Whether the row's result is still valid."""
        if isinstance(known, Done):
            if identity.error:
                return False
        elif known.kind in failure_policy.AGAIN or self._settings.run.retry_failed:
            return False
        if known.inputs and self._reads_something_else(known, identity):
            self._changed += 1
            return False
        if isinstance(known, Done) and not self._has_its_files(known):
            self._damaged += 1
            return False
        return True

    def named(self, request: Request, usual: str) -> Request:
        """The request with file names that overwrite nothing committed and nothing that it reads: the usual names if
        they are free, or those of the row's own result if none of its images is of use.

        Args:
            usual: the prefix of its usual file names, "" for the one of its id.
        """
        if usual and self._belongs_to_another(request, usual):
            folder, slash, name = usual.rpartition("/")
            usual = f"{folder}{slash}{artifacts.stem(name, request.id)}"
        history = list(self._journal.history(request.id))
        made = [result for result in history if isinstance(result, Done) and result.paths]
        if not made and not (request.input_paths and self._reads(request, usual or artifacts.stem(request.id))):
            return replace(request, stem=usual) if usual else request
        last = made[0] if made else None
        if last and last.content == request.content and not any(self._is_whole(path) for path in last.paths):
            own = _stem_of(last.paths[0])
            if all(other.content == last.content or not set(other.paths) & set(last.paths) for other in made):
                return replace(request, stem=own)
        folder = usual.rpartition("/")[0]
        free = artifacts.stem(request.id, f"{request.content} {len(history)}")
        return replace(request, stem=f"{folder}/{free}" if folder else free)

    def warnings(self) -> Iterator[str]:
        """Notes for the user, at the end."""
        self._ahead.close()
        if self._damaged:
            yield (
                f"{_rows(self._damaged)} done before, but image files are missing, empty or damaged; "
                "these rows run again"
            )
        if self._changed:
            yield (
                f"{_rows(self._changed)} done before, but input images or LoRAs have changed since; "
                "these rows run again"
            )

    def _has_its_files(self, done: Done) -> bool:
        if done.files and self._ahead.found_intact(self._journal.position(done)):
            return True
        if len(done.files) != len(done.paths):  # version 0.1.0 wrote no stamps
            return all(self._is_intact(path, None) for path in done.paths)
        return all(map(self._is_intact, done.paths, done.files))

    def _is_intact(self, path: str, written: FileStamp | None) -> bool:
        here = intact.is_intact(f"{self._out}/{path}", written)
        return here or (self._stored is not None and self._stored.has(path, written[0] if written else None))

    def _is_whole(self, path: str) -> bool:
        """Whether there may be something of value."""
        here = f"{self._out}/{path}"
        return intact.is_whole(here) or os.path.isdir(here) or (self._stored is not None and self._stored.has(path))

    def _reads_something_else(self, known: Done | Failed, identity: Identity) -> bool:
        try:
            paths = input_paths(identity.fields, self._settings, self._places)
        except InputError:  # a folder was moved away; the row's result is still valid
            return False
        return len(paths) == len(known.inputs) and any(map(stamps.changed, paths, known.inputs))

    def _reads(self, request: Request, stem: str) -> bool:
        """Whether an image of that name in this run folder is one that the row uses."""
        return any(
            _stem_of(os.path.relpath(os.path.realpath(path), self._images)) == stem for path in request.input_paths
        )

    def _belongs_to_another(self, request: Request, stem: str) -> bool:
        """Whether another row has committed images of that name: rows without an id of their own may have moved."""
        names = [f"{stem}_0.{suffix}" for suffix in SUFFIXES]
        if not self._any or not (
            any(os.path.lexists(f"{self._images}/{name}") for name in names)
            or (self._stored is not None and any(self._stored.has(f"{artifacts.IMAGES}/{name}") for name in names))
        ):
            return False
        if self._taken is None:
            done = (result for result, _ in self._journal.results() if isinstance(result, Done))
            self._taken = {hash(_stem_of(path)): hash(result.id) for result in done for path in result.paths}
        return self._taken.get(hash(stem), hash(request.id)) != hash(request.id)


def _stem_of(path: str) -> str:
    """The prefix of an image's file name, with the folder below `images` that it is in."""
    return path.removeprefix(f"{artifacts.IMAGES}/").rpartition("_")[0]


def _rows(count: int) -> str:
    return f"{count} row was" if count == 1 else f"{count} rows were"
