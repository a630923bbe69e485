"""Stands in for the HTTP client of a backend: a request of a row is taken down instead of sent, and once its answer is
there, it is given as if it had come at once. So the backend builds requests and reads answers as it always does.

A row is done over from its first call each time. What identifies a call is its row and its number among the calls of
that row, so the same call finds its answer in another process too. Does not know what requests say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from fastgen.backends.remote.deferred import NotYet, here
from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.http_client import Answer, Client
from fastgen.output import parcels
from fastgen.output.outbox import Outbox
from fastgen.output.parcels import Ask, Parcel
from fastgen.types import Kind

ABOUT_THE_REQUEST = (400, 422)
"""Statuses of a complaint about what a request says. If it says something else by now, the complaint is outdated."""


class NotDone(Fault):
    """The service did not do a request of a batch, or there is no such batch."""

    paid = False

    def __init__(self, kind: Kind, message: str):
        super().__init__(message)
        self.kind = kind


class Row:
    """One row on its way: its calls so far.

    Args:
        key: tells the row, as it is now, from all others; it begins the keys of its calls.
        results: how many results the row has in the journal.
        take: takes a request down; returns the name of the parcel that will have it.
    """

    def __init__(self, id: str, key: str, results: int, take: Callable[[Ask, str, bytes], str]):
        self.id, self.key, self.results, self.take = id, key, results, take
        self.answers = 0
        """Answers that it was given."""
        self.is_old = True
        """Whether all of them were there before this process began."""
        self.waits_for: set[str] = set()
        """Names of the parcels with its calls that have no answer yet."""
        self.branch: tuple[int, ...] = ()
        self.is_missing_answers = False
        self._calls: Counter[tuple[int, ...]] = Counter()

    def next_key(self) -> str:
        """The key of the next call."""
        number = self._calls[self.branch]
        self._calls[self.branch] += 1
        return digest(f"{self.key} {self.branch} {number}".encode())


class Collecting:
    """Everything of the client that a backend uses.

    Args:
        path_of: a URL -> the path of a request that a batch may hold, "" for any other one, which is sent at once.
        blocked: why the service does not say how a batch is; None while it does.
    """

    def __init__(
        self, http: Client, outbox: Outbox, path_of: Callable[[str], str], blocked: Callable[[Parcel], Fault | None]
    ):
        self._http, self.outbox, self._path_of, self._blocked = http, outbox, path_of, blocked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._http, name)

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """Raises NotYet: the answer is not there yet. Fault: there will be none."""
        row, path = here.row, self._path_of(url) if method == "POST" else ""
        if not isinstance(row, Row) or not path or body is None:
            return self._http.send(method, url, headers, body)
        said = digest(body)
        while True:
            key = row.next_key()
            found = self.outbox.find(key)
            if found is None:
                row.waits_for.add(row.take(Ask(key, row.id, row.results, said), path, body))
                raise NotYet
            if isinstance(found, Parcel):
                if fault := self._blocked(found):
                    raise fault
                row.waits_for.add(found.name)
                raise NotYet
            if found.status in ABOUT_THE_REQUEST and found.said != said:
                continue
            row.answers += 1
            row.is_old = row.is_old and found.is_old
            return _given(found)


def _given(answer: parcels.Answer) -> Answer:
    """Raises NotDone."""
    if answer.kind is not None:
        raise NotDone(answer.kind, answer.why)
    return Answer(answer.status, {"content-type": "application/json"}, bytes(answer.body))


def digest(said: bytes) -> str:
    return blake2b(said, digest_size=16).hexdigest()
