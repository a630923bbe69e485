"""The first part of a run: puts rows of INPUT, and rows whose next try is due, into the windows of the backends. Does
not know workers or batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastgen.config.settings import Settings
from fastgen.errors import DiskError, EngineError, SettingsError, StorageError
from fastgen.input.requests import Prefilled
from fastgen.scheduler.progress import Progress
from fastgen.scheduler.retries import Retries
from fastgen.scheduler.routing import Route
from fastgen.scheduler.triage import Skipped
from fastgen.types import Done, Failed, Request, Result

READ_AHEAD = 256
"""Rows that are read before the loop looks at its messages again."""


class _End:
    """INPUT has no more rows."""


_END = _End()
PASSED_OVER = 64
"""Rows that are done already and are read between two looks at whether the run should do something else."""
Item = Request | Failed | Prefilled | Skipped | _End | None


class RowsIn:
    """Args:
    items: what `triage` says about each row, in order.
    tells_all: whether `read` also yields the rows for which nothing is to be done.
    """

    def __init__(
        self,
        items: Iterator[Request | Failed | Prefilled | Skipped | None],
        route: Route,
        retries: Retries,
        progress: Progress,
        tells_all: bool = False,
    ):
        self.left = True
        """Whether INPUT may have more rows."""
        self._items = items
        self._route = route
        self._retries = retries
        self._progress = progress
        self._tells_all = tells_all

    def read(self, now: float, wanted_elsewhere: Callable[[], bool]) -> Iterator[Result | Skipped | Prefilled]:
        """Fill the windows until they are full, a backend needs its first worker, or the loop is needed elsewhere.
        Yields the rows that fail right away, and with `tells_all` those for which nothing is to be done.

        Raises:
            SettingsError: INPUT has no rows at all.
        """
        failed: list[Result] = []
        for request, group in self._retries.due(now):
            failed += self.assign(request, group.position)
        counts = self._progress.counts
        begun = counts["rows"]
        while self.left and not (self._route.full or self._route.to_start or self._progress.winding_down):
            if counts["rows"] - begun >= READ_AHEAD and wanted_elsewhere():
                break
            try:
                item = next(self._items, _END)
                if not self._tells_all:
                    item = self._pass_over(item)
            except (DiskError, StorageError) as error:  # of the place where rows are kept for the tables, or of INPUT
                self._progress.end(error)
                break
            if item is None:
                break
            if isinstance(item, _End):
                self.close()
                if not counts["rows"] and self._progress.settings.run.shard is None:
                    raise no_rows(self._progress.settings)
                break
            counts["rows"] += 1
            failed += self._take(item)
            if self._tells_all and isinstance(item, Skipped | Prefilled):
                yield item
        yield from self._progress.commit(failed)

    def _pass_over(self, item: Item) -> Item:
        """Count rows for which nothing is to be done, some at a time: there may be a million of them. Returns the last
        of them, or the first item that is another."""
        counts, passed = self._progress.counts, 0
        try:
            while passed < PASSED_OVER and isinstance(item, Skipped) and isinstance(item.result, Done):
                following = next(self._items, _END)
                if following is _END:
                    break
                item, passed = following, passed + 1
        finally:
            counts["rows"] += passed
            counts["done"] += passed
            self._progress.estimate.skipped(passed)
        return item

    def assign(self, request: Request, position: int = 0, failure: Failed | None = None) -> list[Result]:
        """Give a row to a backend, like `Route.assign`. Returns the failure of a row that no backend takes."""
        try:
            failed = self._route.assign(request, position, failure)
        except EngineError as error:
            self._progress.end(error)
            return []
        if failed is None:
            return []
        self._retries.forget(request.id)
        return [failed]

    def close(self) -> None:
        """Take no more rows, and forget what was remembered to tell them apart."""
        self.left = False
        self._items = iter(())

    def _take(self, item: Request | Failed | Prefilled | Skipped) -> list[Result]:
        if not isinstance(item, Request):
            self._progress.estimate.skipped()
        match item:
            case Request():
                self._progress.estimate.read(item.id, item.work)
                return self.assign(item)
            case Failed():
                return [item]
            case Prefilled():
                self._progress.counts["kept"] += 1
            case Skipped(Done()):
                self._progress.counts["done"] += 1
            case Skipped(Failed() as failed):
                self._progress.count_failed(failed)
        return []


def no_rows(settings: Settings) -> SettingsError:
    """What is wrong if there is nothing to do at all."""
    name, picked = settings.run.input, settings.run.only_rows
    if picked:
        return SettingsError(f"--rows {picked}: none of its ids is of a row of INPUT {name}; give the ids of its rows")
    return SettingsError(f"INPUT {name}: holds no rows; check that it is the right file or folder")
