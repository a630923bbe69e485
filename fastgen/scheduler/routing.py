"""The route of a run: its backends in order, the rows that wait for each, and which backends still take rows. Starts
nothing; does not know workers or the clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator

from msgspec.structs import replace

from fastgen import providers
from fastgen.backends.registry import streams
from fastgen.config.settings import Settings
from fastgen.errors import EngineError
from fastgen.scheduler import failure_policy
from fastgen.scheduler.batching import WINDOW, Window
from fastgen.types import Batch, Done, Failed, ImageParams, Kind, Request, Result


class Group:
    """One backend of the route, and the rows that wait for it."""

    def __init__(self, settings: Settings, position: int):
        self.settings = settings
        self.position = position
        """0 for the backend that was asked for, 1 for the first fallback."""
        size = max(WINDOW, settings.batch_for(0)) if settings.durable else WINDOW
        workers = sum(map(streams, settings.placement.devices))
        self.window = Window(settings.samples_for, workers, size, any_shape=settings.durable)
        self.queue: deque[Batch] = deque()
        """Parts of batches that failed together."""
        self.suspects: deque[Batch] = deque()
        """Batches that were on a worker when it died. Each runs alone."""
        self.started = False
        """Whether it has workers; they are started when the first row waits for them."""
        self.closed = ""
        """Why it takes no more rows; "" while it does."""
        self._worked = False
        self._useless = 0
        """Number of consecutive answers that are not the fault of a row."""
        self._down_since = 0.0

    def __len__(self) -> int:
        """Requests and batches that wait."""
        return len(self.window) + len(self.queue) + len(self.suspects)

    @property
    def samples(self) -> int:
        """Samples that wait."""
        return self.window.samples + sum(batch.samples for held in (self.queue, self.suspects) for batch in held)

    @property
    def name(self) -> str:
        """Backend and model, for messages."""
        return f"{self.settings.backend} {self.settings.model.name}"

    def failed(self, request: Request, kind: Kind, message: str, attempts: int = 1) -> Failed:
        """A row fails here because of our own check."""
        settings = self.settings
        return Failed(
            request.id, kind, message, "", settings.backend.name, settings.model.name, request.content, attempts
        )

    def view(self, request: Request) -> Request:
        """The request as this backend sees it: an API gets a size only if the user asked for one."""
        if not self.settings.backend.is_remote or not isinstance(request.params, ImageParams):
            return request
        width, height = request.size
        # If a local engine comes first, it has used --quality for itself.
        quality = request.params.quality or self.settings.image.options.get("quality", "")
        return replace(request, params=replace(request.params, width=width, height=height, quality=quality))

    def next_batch(
        self,
        alone: bool,
        ended: bool,
        may_try: Callable[[Batch], bool],
        worker: str = "",
        busy: Collection[str] = (),
    ) -> tuple[Batch | None, bool]:
        """The next batch, and whether it is a suspect.

        Args:
            alone: whether the worker that asks has no batch.
            ended: whether no more rows will come.
            may_try: whether the worker may have a suspect.
            worker: its name.
            busy: see `Window.draw`.
        """
        if (suspect := next(filter(may_try, self.suspects), None)) is not None:
            if not alone:
                return None, False
            self.suspects.remove(suspect)
            return suspect, True
        return (self.queue.popleft() if self.queue else self.window.draw(ended, worker, busy)), False

    def take_back(self) -> Iterator[Request]:
        """Remove everything that waits, for another group."""
        for held in (self.queue, self.suspects):
            while held:
                yield from held.popleft().requests
        while (batch := self.window.draw(ended=True)) is not None:
            yield from batch.requests

    def learn(self, result: Result, now: float, last: bool) -> str:
        """Record how a try went. Returns why the backend should get no more rows, or "".

        Args:
            now: seconds on any clock.
            last: whether no other backend could take the rows.
        """
        if isinstance(result, Done) or result.kind in failure_policy.ANSWERED:
            self._worked, self._useless, self._down_since = True, 0, 0.0
        elif result.kind in failure_policy.CLOSING:
            self._useless += 1
            if self._useless >= (failure_policy.MAX_USELESS if self._worked else failure_policy.MAX_USELESS_AT_FIRST):
                return result.message
        elif result.kind == "rate_limited":  # it is reachable, even if it does not work
            self._down_since = 0.0
        elif result.kind == "unavailable":
            self._down_since = self._down_since or now
            patience = failure_policy.OUTAGE_S if last else failure_policy.OUTAGE_WITH_FALLBACK_S
            if now - self._down_since >= patience:
                return f"no answer for {now - self._down_since:.0f} s, last: {result.message}"
        return ""


class Route:
    """The groups in order: the requested backend, then its fallbacks."""

    def __init__(self, settings: Settings):
        self.groups = [Group(link, position) for position, link in enumerate(settings.route)]

    def __len__(self) -> int:
        """Requests and batches that wait."""
        return sum(map(len, self.groups))

    @property
    def full(self) -> bool:
        for group in self.groups:  # noqa: SIM110  asked for every row, so without a generator
            if group.window.full:
                return True
        return False

    @property
    def to_start(self) -> list[Group]:
        """Groups that have rows but no workers yet."""
        return [group for group in self.groups if not group.started and len(group)]

    def assign(self, request: Request, position: int = 0, failure: Failed | None = None) -> Failed | None:
        """Put a row into the window of the first backend that is open and can do it. If there is none, the row fails.

        Args:
            position: the first group that may have it.
            failure: why the previous backend gave up on it; the row then fails with this.
        Returns:
            The failure, or None if the row was accepted.
        Raises:
            EngineError: all backends that could do it are closed. The row has not failed; it waits for another run.
        """
        cannot = failure
        for group in self.groups[position:]:
            if group.closed:
                continue
            if reason := providers.refuse(group.settings, group.view(request)):
                cannot = cannot or group.failed(request, "unsupported", f"row {request.row}: {group.name}: {reason}")
                continue
            group.window.add(request)
            return None
        if cannot is None:
            raise EngineError(f"no backend is left: {self.groups[-1].closed}")
        return cannot

    def after(self, group: Group) -> list[Group]:
        """The open backends after this one."""
        return [other for other in self.groups[group.position + 1 :] if not other.closed]
