"""The backend of a service as its Batch API has it. It does the rows of a batch with the backend that calls directly,
up to the calls whose answers are missing; brings those to the service as parcels; and does the rows over once there
are answers. Rows whose answers take longer are given back, with no attempt counted, and come again at once.

Everything that must survive is in the run folder (output/outbox.py). Does not know formats or SDKs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from msgspec.structs import replace

from fastgen import providers
from fastgen.backends.base import Backend
from fastgen.backends.remote.batch_api.collecting import Collecting, Row, digest
from fastgen.backends.remote.batch_api.courier import Courier, Pace
from fastgen.backends.remote.batch_api.service import Service
from fastgen.backends.remote.deferred import NotYet, here
from fastgen.backends.remote.fleet import THEIR_FAULT
from fastgen.backends.remote.gate import Gate, Outcome, Ticket
from fastgen.backends.remote.http_client import Client
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import DiskError
from fastgen.output.journal import Journal
from fastgen.output.outbox import Draft, Outbox
from fastgen.output.parcels import Ask
from fastgen.output.run_dir import JOURNAL
from fastgen.types import Batch, Bucket, Failed, Request, Result

LATER = "its answer is not there yet"
LOOK_S = 5.0
"""For what nobody is told of."""
MAY_BE_OVER = THEIR_FAULT | {"input"}


class NoGate(Gate):
    """Nothing is sent, so nothing has to wait."""

    def __init__(self) -> None:
        super().__init__(1)

    def enter(self, begun: bool = False) -> Ticket:
        return Ticket(0)

    def leave(self, ticket: Ticket, outcome: Outcome, retry_after: float = 0.0) -> None: ...


class BatchApi:
    """Args:
    make: makes the backend that calls directly; it has `gate` and `through`.
    service: its Batch API; None: the one of the settings.
    """

    def __init__(
        self,
        settings: Settings,
        device: Device,
        make: Callable[[Settings, Device], Backend],
        service: Service | None = None,
        pace: Pace | None = None,
    ):
        self.settings = settings
        self._inner, self._pace = make(settings, device), pace
        self._service = service or _service(settings)
        self._is_closing = False
        self._begin()

    def _begin(self) -> None:
        """Open what belongs to a run folder."""
        settings = self.settings
        out = Path(settings.run.out)
        where = settings.endpoint.base_url or "the vendor"
        self._journal = Journal(out / JOURNAL, read_only=True) if (out / JOURNAL).exists() else None
        self._outbox = Outbox(out, settings.backend.name, where)
        self._courier = Courier(self._outbox, self._service, self._pace)
        self._rest: dict[str, set[str]] = {}
        """Row -> parcels that it is known to wait for."""
        self._tries: Counter[str] = Counter()
        """Row -> tries that have failed in this process."""

    def open(self) -> dict:
        inner = self._inner
        inner.gate = NoGate()  # type: ignore[attr-defined]
        inner.through = self._stand_in  # type: ignore[attr-defined]
        facts = inner.open()
        self._service.open()
        self._courier.start()
        found = sum(parcel.step != "ended" for parcel in self._outbox.parcels.values())
        return {**facts, "streams": 1, **({"batches_found": found} if found else {})}

    def _stand_in(self, http: Client) -> Client:
        self._collecting = Collecting(
            http, self._outbox, self._service.path_of, lambda parcel: self._courier.blocked(parcel)
        )
        return self._collecting  # type: ignore[return-value]

    def run(self, batch: Batch) -> list[Result]:
        """Raises DiskError."""
        results: dict[str, Result] = {}
        while not self._is_closing:
            drafts = Drafts(self._outbox, self._service, self.settings.run.batch_rows)
            try:
                for request in batch.requests:
                    if request.id not in results and self._may_go_on(request):
                        result = self._do(request, drafts)
                        if result is not None:
                            results[request.id] = result
                drafts.close()
            except BaseException:
                drafts.drop()
                raise
            self._courier.poke()
            if results or not self._wait(batch):
                break
        return [results.get(request.id) or self._later(request) for request in batch.requests]

    def _do(self, request: Request, drafts: Drafts) -> Result | None:
        """The result of a row, None if it must wait. Raises DiskError."""
        told = f"{request.id}\0{providers.ask_of(self.settings, request)}"
        while True:
            found = self._try(request, told, drafts)
            if found is None:
                return None
            result, row = found
            if isinstance(result, Failed) and row.answers:
                self._tries[told] += 1
            # A failure that no run has counted, and that may be over by now: a quota, an outage. It is not final, as a
            # direct call that failed so in an earlier run would not be.
            is_over = isinstance(result, Failed) and row.answers and row.is_old and result.kind in MAY_BE_OVER
            if not is_over:
                return replace(result, receipt=row.key)
            if result.cost:
                return replace(result, receipt=row.key, kind="transient")

    def _try(self, request: Request, told: str, drafts: Drafts) -> tuple[Result, Row] | None:
        """Do a row from its first call. Returns None if an answer is missing."""
        key = digest(f"{told}\0{self._results_of(request.id)}\0{self._tries[told]}".encode("utf-8", "surrogatepass"))
        row = here.row = Row(request.id, key, self._results_of(request.id), drafts.add)
        try:
            (result,) = self._inner.run(Batch(Bucket.of(request), (request,)))
        except NotYet:
            self._rest[request.id] = row.waits_for
            return None
        finally:
            here.row = None
        self._rest.pop(request.id, None)
        return result, row

    def _may_go_on(self, request: Request) -> bool:
        """Whether something that a row waits for has come, as far as is known."""
        rest = self._rest.get(request.id)
        if not rest:
            return True
        parcels = self._outbox.parcels
        waits_for = [parcels[name] for name in rest if name in parcels]
        if len(waits_for) < len(rest):  # one of them was never made
            return True
        return any(parcel.step == "ended" or self._courier.blocked(parcel) for parcel in waits_for)

    def _wait(self, batch: Batch) -> bool:
        """Wait until a row may go on. Returns False if none will. Raises DiskError."""
        with self._outbox.changed:
            while not self._is_closing:
                if (error := self._courier.broken) is not None:
                    raise error if isinstance(error, DiskError) else RuntimeError(f"the courier has stopped: {error}")
                if any(map(self._may_go_on, batch.requests)):
                    return True
                self._outbox.changed.wait(LOOK_S)
        return False

    def _later(self, request: Request) -> Failed:
        settings = self.settings
        return Failed(
            request.id, "unavailable", LATER, "", settings.backend.name, settings.model.name, request.content, 0
        )

    def _results_of(self, id: str) -> int:
        if self._journal is None or hash(id) not in self._journal.index:
            return 0
        return sum(1 for _ in self._journal.history(id))

    def cancel_pending(self) -> None:
        with self._outbox.changed:
            self._is_closing = True
            self._outbox.changed.notify_all()

    def reconfigure(self, settings: Settings) -> None:
        self._inner.reconfigure(settings)
        self.settings = settings
        self._end()
        self._begin()
        self._collecting.outbox = self._outbox
        self._courier.start()

    def _end(self) -> None:
        self._courier.close()
        self._outbox.close()
        if self._journal is not None:
            self._journal.close()

    def close(self) -> None:
        self.cancel_pending()
        self._end()
        self._service.close()
        self._inner.close()


class Drafts:
    """The parcels that are being filled, one for each kind of request. A full one is closed, and another begun."""

    def __init__(self, outbox: Outbox, service: Service, most_rows: int):
        self._outbox, self._service = outbox, service
        self._most = min(service.most_requests, most_rows or service.most_requests)
        self._open: dict[str, Draft] = {}

    def add(self, ask: Ask, path: str, body: bytes) -> str:
        """Returns the name of the parcel that has it. Raises DiskError."""
        line = self._service.line(ask.key, path, body)
        draft = self._open.get(path)
        if draft is not None and (draft.count >= self._most or draft.size + len(line) >= self._service.most_bytes):
            self._open.pop(path).close(path)
            draft = None
        if draft is None:
            draft = self._open[path] = self._outbox.draft()
        draft.add(ask, line)
        return draft.name

    def close(self) -> None:
        """Make all of them durable. Raises DiskError."""
        while self._open:
            path, draft = self._open.popitem()
            draft.close(path)

    def drop(self) -> None:
        for draft in self._open.values():
            draft.drop()
        self._open.clear()


def _service(settings: Settings) -> Service:
    assert settings.backend.service is not None
    module, _, name = settings.backend.service.batches.partition(":")
    return getattr(import_module(module), name)(settings)
