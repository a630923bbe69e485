"""What is asked of a service by the file, as it lies in the run folder. Reads it and clears it away; sends nothing.

A *parcel* is a folder in RUN/.batches/BACKEND with the requests of one batch:

    requests.jsonl   one line per request, as the service wants it; removed once the answers are there
    asks.jsonl       for each request: its key, its row, how many results the row had, and a hash of what it says
    state.json       replaced as a whole at every step
    answers.jsonl    one line per request: its key, and a status with a body, or why there is no answer

    made -> uploaded -> submitting -> submitted -> ended

A folder without state.json was never sent. "submitting" is written before the batch is asked for, so after a kill it
may or may not be at the service, which has to be asked.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from fastgen.output.previous import BATCHES
from fastgen.types import Kind, warm

FOLDER = BATCHES
STATE, REQUESTS, ASKS, ANSWERS = "state.json", "requests.jsonl", "asks.jsonl", "answers.jsonl"
AT_SERVICE = ("submitting", "submitted")

Step = Literal["made", "uploaded", "submitting", "submitted", "ended"]


class Parcel(msgspec.Struct):
    """The state of one batch."""

    name: str
    """Ours; the batch has it at the service too, so that it can be found there."""
    where: str
    """The address of the service: nobody else knows the batch."""
    endpoint: str
    """What the service calls the kind of its requests."""
    requests: int
    step: Step = "made"
    made_at: float = 0.0
    """By time.time()."""
    submitting_at: float = 0.0
    file: str = ""
    """The uploaded file at the service."""
    id: str = ""
    """The batch at the service."""
    done: int = 0
    """Requests that the service has answered, as it says."""
    failed: int = 0
    trouble: str = ""
    """Why it does not go on at the moment."""


class Ask(msgspec.Struct):
    key: str
    row: str
    results: int
    """Results of the row in the journal when it was asked for."""
    said: str
    """Hash of the request."""


class Answer(msgspec.Struct, omit_defaults=True):
    key: str
    status: int = 0
    """HTTP; 0 if there is no answer."""
    body: msgspec.Raw = msgspec.Raw(b"null")
    kind: Kind | None = None
    why: str = ""
    """Why there is no answer."""
    said: str = ""
    """Hash of the request."""
    is_old: bool = False
    """Whether it was there before this process began."""


warm(Parcel, Ask, Answer)
_parcel = msgspec.json.Decoder(Parcel).decode
_ask = msgspec.json.Decoder(Ask).decode


def at_service(out: Path) -> list[Parcel]:
    """The batches of a run folder that are at a service, or may be, in the order in which they went there."""
    found = [parcel for _, parcel in _all(out) if parcel.step in AT_SERVICE]
    return sorted(found, key=lambda parcel: (parcel.submitting_at, parcel.made_at))


def described(found: Sequence[Parcel]) -> str:
    """Such as "2 batches with 700 requests are still at the service (batch_1, batch_2)"."""
    requests, several = sum(parcel.requests for parcel in found), len(found) > 1
    batches = f"{len(found)} batch{'es' * several} with {requests} request{'s' * (requests != 1)}"
    names = ", ".join(parcel.id or f"not confirmed yet: {parcel.name}" for parcel in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{batches} {'are' if several else 'is'} still at the service ({names}{more})"


def sweep(out: Path, results_of: Callable[[str], int]) -> None:
    """Remove the parcels whose answers have all become results.

    Args:
        results_of: the number of results that a row has in the journal, which must be durable.
    """
    for folder, parcel in _all(out):
        if parcel.step == "ended" and all(results_of(ask.row) > ask.results for ask in asks_in(folder)):
            with suppress(OSError):
                (folder / STATE).unlink()  # first, so that no half of it is found
            shutil.rmtree(folder, ignore_errors=True)


def _all(out: Path) -> Iterator[tuple[Path, Parcel]]:
    """The folder and the state of every parcel of every backend."""
    try:
        backends = sorted((out / FOLDER).iterdir())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):  # no such folder can be there
            return
        raise
    with suppress(FileNotFoundError, NotADirectoryError):
        for backend in backends:
            for parcel in parcels_in(backend):
                yield backend / parcel.name, parcel


def parcels_in(folder: Path) -> Iterator[Parcel]:
    """Those of one backend."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(folder.iterdir()):
            with suppress(FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
                yield _parcel((path / STATE).read_bytes())


def asks_in(folder: Path) -> Iterator[Ask]:
    """Those of one parcel."""
    with suppress(FileNotFoundError), (folder / ASKS).open("rb") as file:
        for line in file:
            yield _ask(line)
