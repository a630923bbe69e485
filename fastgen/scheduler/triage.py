"""Each row of INPUT against the journal: what is done already, what is to be run, what cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fastgen.config.settings import Settings
from fastgen.input.readers import rows
from fastgen.input.requests import Intake, Prefilled
from fastgen.output.journal import Journal
from fastgen.scheduler import failure_policy
from fastgen.types import Done, Failed, Request


class Skipped(msgspec.Struct, frozen=True):
    """A row whose result stands: nothing is to be done."""

    result: Done | Failed


def triage(settings: Settings, journal: Journal | None) -> Iterator[Request | Failed | Prefilled | Skipped]:
    """What is to be done about each row, in order, given what the journal has.

    A done row whose pictures are there is Known; so is a failed one, unless --retry-failed. Rows that failed as bad
    input are looked at again each time, since that costs nothing: what was mended becomes a Request. So do rows that a
    service turned away for what was not their fault (`failure_policy.AGAIN`).
    """
    intake = Intake(settings)
    out = Path(settings.out)
    for row in rows.read(Path(settings.input), settings.limit):
        identity = intake.identify(row)
        known = journal.get(identity.id, identity.content) if journal else None
        if (isinstance(known, Done) and not identity.error and all((os.path.exists(out / p)) for p in known.paths)) or (
            isinstance(known, Failed) and known.kind not in failure_policy.AGAIN and not settings.retry_failed
        ):
            yield Skipped(known)
        else:
            item = intake.read(row, identity)
            yield Skipped(item) if isinstance(item, Failed) and item == known else item
