"""Brings parcels to a service and their answers back, one step at a time, each written down before the next one. One
thread; it goes on for as long as the process lives, and the next process goes on where it was.

Submitting is the only step that costs money. It is written down before it is done. If nobody knows whether it was done
(a kill, no answer), the batches at the service are looked through for the parcel's name, for a while, because a request
that was on its way may arrive late. Only then is it submitted again. Does not know rows or what a service is called.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from fastgen.backends.remote.batch_api.collecting import NotDone
from fastgen.backends.remote.batch_api.service import Look, Service
from fastgen.backends.remote.responses import ProviderError
from fastgen.errors import DiskError
from fastgen.output.outbox import Outbox
from fastgen.output.parcels import Answer, Parcel
from fastgen.types import Kind

NOT_DONE: frozenset[Kind] = frozenset(
    {"rate_limited", "quota", "unauthorized", "gone", "input", "unsupported", "refused"}
)
"""A service that refuses to submit with one of these has not submitted."""
BUSY: frozenset[Kind] = frozenset({"unavailable", "rate_limited", "malformed", "internal", "transient"})
"""Failures that pass."""


class Pace:
    """How long to wait for what, in seconds. A test has shorter ones."""

    arrive_s = 30.0
    """A batch that was submitted is in the list of batches after this time, if it ever is."""
    search_s = 2.0
    """Between two looks at that list."""
    first_s, longest_s = 1.0, 60.0
    """Between two looks at a batch: a tenth of its age, within these limits; and between two tries after a failure."""
    patience_s = 600.0
    """For a service that is not there to take a batch, or that refuses to say how one is."""
    full_s, full_patience_s = 60.0, 3600.0
    """Before a batch is submitted again that the service had no room for; and how long that is tried if none of ours is
    there whose end would make room."""


class Courier:
    """Args:
    clock: time.time, which goes on while no process runs.
    """

    def __init__(
        self, outbox: Outbox, service: Service, pace: Pace | None = None, clock: Callable[[], float] = time.time
    ):
        self.outbox, self.service = outbox, service
        self.pace, self.clock = pace or Pace(), clock
        self.broken: BaseException | None = None
        """Why it cannot go on at all."""
        self._due: dict[str, float] = {}
        self._tries: dict[str, int] = {}
        """Failures in a row, by parcel."""
        self._since: dict[str, float] = {}
        """When the first of them was."""
        self._blocked: dict[str, ProviderError] = {}
        self._stop = False
        self._poked = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def poke(self) -> None:
        """There is a new parcel."""
        with self._poked:
            self._poked.notify_all()

    def close(self) -> None:
        """Stop after the step in progress, and do not wait for that long."""
        with self._poked:
            self._stop = True
            self._poked.notify_all()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def blocked(self, parcel: Parcel) -> NotDone | None:
        """Why the service does not say how a batch is, if that will not pass."""
        found = self._blocked.get(parcel.name)
        return (
            NotDone(found.kind, f"the batch {parcel.id} is at the service, which does not say how it is: {found}")
            if found
            else None
        )

    # The loop

    def _run(self) -> None:
        try:
            while not self._stop:
                wait_s = self.work()
                with self._poked:
                    if not self._stop:
                        self._poked.wait(wait_s)
        except BaseException as error:  # a full disk, or a fault of ours: whoever waits must be told
            if not isinstance(error, DiskError):
                traceback.print_exc()
            self.broken = error
        with self.outbox.changed:
            self.outbox.changed.notify_all()

    def work(self) -> float:
        """Take the next step of each parcel that is due. Returns the seconds until another one is. Raises DiskError."""
        for parcel in list(self.outbox.parcels.values()):
            while not self._stop and parcel.step != "ended" and self._due.get(parcel.name, 0.0) <= self.clock():
                self._take_step(parcel)
        left = [self._due.get(p.name, 0.0) for p in list(self.outbox.parcels.values()) if p.step != "ended"]
        return max(0.0, min(left) - self.clock()) if left else self.pace.longest_s

    def _take_step(self, parcel: Parcel) -> None:
        try:
            match parcel.step:
                case "made":
                    file = self.service.upload(parcel, self.outbox.path(parcel))
                    self.outbox.step(parcel, step="uploaded", file=file, trouble="")
                case "uploaded":
                    self.outbox.step(parcel, step="submitting", submitting_at=self.clock())
                    self._submit(parcel)
                case "submitting":
                    self._search(parcel)
                case "submitted":
                    self._look(parcel)
            self._worked(parcel)
        except ProviderError as error:
            self._failed(parcel, error)

    def _submit(self, parcel: Parcel) -> None:
        try:
            id = self.service.submit(parcel)
        except ProviderError as error:
            if error.kind in NOT_DONE:
                self.outbox.step(parcel, step="uploaded")
            raise
        self._is_there(parcel, id)

    def _search(self, parcel: Parcel) -> None:
        """Find a batch of which nobody knows whether it was submitted."""
        since_s = self.clock() - parcel.submitting_at
        if id := self.service.find(parcel):
            self._is_there(parcel, id)
        elif since_s >= self.pace.arrive_s:
            self.outbox.step(parcel, step="uploaded")
        else:
            self._due[parcel.name] = self.clock() + min(self.pace.search_s, self.pace.arrive_s - since_s)

    def _is_there(self, parcel: Parcel, id: str) -> None:
        self.outbox.step(parcel, step="submitted", id=id, trouble="")
        self._due[parcel.name] = self.clock() + self.pace.first_s

    def _look(self, parcel: Parcel) -> None:
        look = self.service.look(parcel)
        if look.is_full:
            self._no_room(parcel, look)
        elif look.ended:
            self._bring_back(parcel, look)
        else:
            if (look.done, look.failed) != (parcel.done, parcel.failed) or parcel.trouble:
                self.outbox.step(parcel, done=look.done, failed=look.failed, trouble="")
            age_s = self.clock() - parcel.submitting_at
            self._due[parcel.name] = self.clock() + min(self.pace.longest_s, max(self.pace.first_s, age_s / 10))

    def _bring_back(self, parcel: Parcel, look: Look) -> None:
        paths = [self.outbox.path(parcel, f"results-{number}.part") for number in range(len(look.files))]
        for file, path in zip(look.files, paths, strict=True):
            self.service.fetch(file, path)
        answers = self._answers(paths)
        first = next(answers, None)
        if first is None and any(path.stat().st_size for path in paths):  # asking again would give, and cost, the same
            said = f"the results of batch {parcel.id} cannot be read; they are in {paths[0].parent}"
            self.outbox.keep(parcel, [], ("unsupported", said))
            return
        self.outbox.keep(parcel, chain([first] if first else [], answers), look.otherwise)
        for path in paths:
            with suppress(OSError):
                path.unlink()

    def _answers(self, paths: list[Path]) -> Iterator[Answer]:
        for path in paths:
            with path.open("rb") as file:
                for line in file:
                    if (answer := self.service.read(line)) is not None:
                        yield answer

    # What goes wrong

    def _worked(self, parcel: Parcel) -> None:
        for table in (self._tries, self._since, self._blocked):
            table.pop(parcel.name, None)

    def _no_room(self, parcel: Parcel, look: Look) -> None:
        """The service did not begin a batch because too much of ours waits there."""
        others = any(p.step == "submitted" for p in self.outbox.parcels.values() if p is not parcel)
        since = self._since.setdefault(f"{parcel.name} full", self.clock())
        if not others and self.clock() - since >= self.pace.full_patience_s:
            self.outbox.keep(parcel, [], look.otherwise)
            return
        self.outbox.step(parcel, step="uploaded", id="", trouble=look.otherwise[1])
        self._due[parcel.name] = self.clock() + self.pace.full_s

    def _failed(self, parcel: Parcel, error: ProviderError) -> None:
        """Try again later, or give the rows back."""
        tries = self._tries[parcel.name] = self._tries.get(parcel.name, 0) + 1
        now = self.clock()
        waited_s = now - self._since.setdefault(parcel.name, now)
        is_unsent, passes = parcel.step in ("made", "uploaded"), error.kind in BUSY
        if is_unsent and (not passes or waited_s >= self._patience_s(error.kind)):
            self.outbox.keep(parcel, [], (error.kind, str(error)))
            return
        if not is_unsent and not passes and waited_s >= self.pace.patience_s:
            self._blocked[parcel.name] = error
            with self.outbox.changed:
                self.outbox.changed.notify_all()
        if str(error) != parcel.trouble:
            print(f"batch {parcel.id or parcel.name}: {error}", file=sys.stderr)
            self.outbox.step(parcel, trouble=str(error))
        pause_s = min(self.pace.longest_s, self.pace.first_s * 2 ** min(tries - 1, 10))
        self._due[parcel.name] = now + max(error.retry_after, pause_s)

    def _patience_s(self, kind: Kind) -> float:
        """How long a parcel that is not at the service yet is tried. The end of another one makes room there."""
        if kind != "rate_limited":
            return self.pace.patience_s
        return (
            float("inf")
            if any(p.step == "submitted" for p in self.outbox.parcels.values())
            else self.pace.full_patience_s
        )
