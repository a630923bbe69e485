"""The backends of a run in a chain: the rows that wait for each, and which of them still takes any. Knows no workers,
no clock.

Rows begin at the first group. Where a backend cannot do a row, or can do none any more, they go to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from fastgen import providers
from fastgen.backends.registry import streams
from fastgen.config.settings import Settings
from fastgen.errors import EngineError
from fastgen.scheduler import failure_policy
from fastgen.scheduler.batching import Window
from fastgen.types import Batch, Done, Failed, ImageParams, Request, Result


class Group:
    def __init__(self, settings: Settings, position: int):
        self.settings = settings
        self.position = position
        """0 for the backend that was asked for, 1 for the first fallback."""
        self.window = Window(settings.batch_for, sum(map(streams, settings.placement.devices)))
        self.queue: deque[Batch] = deque()
        """Parts of batches that failed together."""
        self.suspects: deque[Batch] = deque()
        """Batches that were on a worker when it died: each runs with nothing beside it."""
        self.started = False
        """Whether it has workers: they begin when the first row gets there."""
        self.closed = ""
        """Why it takes no more rows; "" while it does."""
        self._worked = False
        self._useless = 0
        """Answers in a row that no row can do anything about."""
        self._down_since = 0.0

    def __len__(self) -> int:
        """Requests and batches that wait."""
        return len(self.window) + len(self.queue) + len(self.suspects)

    def view(self, request: Request) -> Request:
        """The request as this backend sees it: an API is told a size only where somebody asked for one."""
        if not self.settings.backend.is_remote or not isinstance(request.params, ImageParams):
            return request
        width, height = request.size
        # A local engine that comes first has taken --quality for itself.
        quality = request.params.quality or self.settings.image.options.get("quality", "")
        return replace(request, params=replace(request.params, width=width, height=height, quality=quality))

    def next_batch(self, alone: bool, ended: bool) -> tuple[Batch | None, bool]:
        """The next batch, and whether it is a suspect.

        Args:
            alone: whether the worker that asks holds nothing.
            ended: whether no more rows will come.
        """
        if self.suspects:
            return (self.suspects.popleft(), True) if alone else (None, False)
        return (self.queue.popleft() if self.queue else self.window.draw(ended)), False

    def take_back(self) -> Iterator[Request]:
        """All that waits, for another group."""
        for held in (self.queue, self.suspects):
            while held:
                yield from held.popleft().requests
        while (batch := self.window.draw(ended=True)) is not None:
            yield from batch.requests

    def learn(self, result: Result, now: float, last: bool) -> str:
        """Note how a try went. Returns why the backend should get no more rows, or "".

        Args:
            now: seconds on any clock.
            last: whether no other backend could take its rows.
        """
        if isinstance(result, Done) or result.kind in failure_policy.ANSWERED:
            self._worked, self._useless, self._down_since = True, 0, 0.0
        elif result.kind in failure_policy.CLOSING:
            self._useless += 1
            if self._useless >= (failure_policy.MAX_USELESS if self._worked else failure_policy.MAX_USELESS_AT_FIRST):
                return result.message
        elif result.kind == "rate_limited":  # it is there, if not working
            self._down_since = 0.0
        elif result.kind == "unavailable":
            self._down_since = self._down_since or now
            patience = failure_policy.OUTAGE_S if last else failure_policy.OUTAGE_WITH_FALLBACK_S
            if now - self._down_since >= patience:
                return f"no answer for {now - self._down_since:.0f} s, last: {result.message}"
        return ""


class Route:
    """Args: start: called with a group when its first row gets there."""

    def __init__(self, settings: Settings, start: Callable[[Group], None]):
        self.groups = [Group(link, position) for position, link in enumerate(settings.route)]
        self._start = start

    def __len__(self) -> int:
        """Requests and batches that wait."""
        return sum(map(len, self.groups))

    @property
    def full(self) -> bool:
        return any(group.window.full for group in self.groups)

    def assign(self, request: Request, position: int = 0, failure: Failed | None = None) -> Failed | None:
        """Hand a row to the first backend from `place` on that is open and can do it. Where there is none it fails:
        with `failure`, why the backend before gave up on it, or with what none of them can do.

        Raises:
            EngineError: all that could have done it are closed; the row has not failed, it waits for another run.
        """
        cannot = failure
        for group in self.groups[position:]:
            if group.closed:
                continue
            settings = group.settings
            if reason := providers.refuse(settings, group.view(request)):
                message = f"row {request.row}: {settings.backend} {settings.model.name}: {reason}"
                cannot = cannot or Failed(
                    request.id, "unsupported", message, "", settings.backend.name, settings.model.name, request.content
                )
                continue
            if not group.started:
                group.started = True
                self._start(group)
            group.window.add(request)
            return None
        if cannot is None:
            raise EngineError(f"no backend is left: {self.groups[-1].closed}")
        return cannot

    def after(self, group: Group) -> list[Group]:
        """The backends that may take its rows."""
        return [other for other in self.groups[group.position + 1 :] if not other.closed]
