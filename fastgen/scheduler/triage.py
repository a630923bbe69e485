"""Each row of INPUT against the journal: what is done already, what is to be run, what cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fastgen.config.settings import Settings
from fastgen.input.readers.rows import Row, RowReader
from fastgen.input.requests import Identity, Intake, Prefilled, filled
from fastgen.output.journal import Journal
from fastgen.output.row_spool import RowSpool, SpooledRow
from fastgen.scheduler import failure_policy
from fastgen.types import Done, Failed, Request


class Skipped(msgspec.Struct, frozen=True):
    """A row whose result stands: nothing is to be done."""

    result: Done | Failed


def triage(
    settings: Settings, reader: RowReader, journal: Journal | None, spool: RowSpool | None
) -> Iterator[Request | Failed | Prefilled | Skipped]:
    """What is to be done about each row, in order, given what the journal has.

    A done row whose pictures are there is skipped; so is a failed one, unless --retry-failed. Rows that failed as bad
    input are looked at again each time, since that costs nothing: what was fixed becomes a Request. So do rows that a
    service turned away for what was not their fault (`failure_policy.AGAIN`).

    Args:
        reader: the rows, which are read once and each identified once.
        journal: None: nothing has been done yet.
        spool: gets every row for the tables; None: there will be none.
    """
    intake = Intake(settings)
    out = Path(settings.run.out)
    for row in reader:
        identity = intake.identify(row)
        if spool is not None:
            spool.add(_spooled(row, identity, settings.rows.output_key))
        known = journal.get(identity.id, identity.content) if journal else None
        if (isinstance(known, Done) and not identity.error and all((os.path.exists(out / p)) for p in known.paths)) or (
            isinstance(known, Failed) and known.kind not in failure_policy.AGAIN and not settings.run.retry_failed
        ):
            yield Skipped(known)
        else:
            item = intake.read(row, identity)
            yield Skipped(item) if isinstance(item, Failed) and item == known else item


def _spooled(row: Row, identity: Identity, output_key: str) -> SpooledRow:
    prefilled = identity.error is None and filled(identity.fields.get(output_key))
    readable = bool(identity.fields) or identity.error is None
    return SpooledRow(row.number, row.raw, identity.id, identity.content, prefilled, readable)
