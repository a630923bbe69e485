"""Who is at fault when workers die: a row, or a device. Pure: does not know workers, only their names.

A row that is alone on its worker when it dies twice is poison. But a device that has failed kills whatever it gets. So
after a fault of a device:

* a row is tried on another worker next, if there is one, and is accused only if it kills there too;
* an accused row is poison once any row succeeds after that; until then the devices may be the cause, and it waits;
* if workers die that hold no row, or whose rows are all done later, something else ends them (a killer outside, a full
  memory), and a row needs more deaths to be found guilty;
* if other workers die between the deaths of a row, a killer outside may have hit it each time, and it needs more too;
* a worker that dies MAX_FAULTS times and finishes nothing in between is taken out; the last one is given more time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Literal

from fastgen.errors import EngineError
from fastgen.scheduler import failure_policy
from fastgen.scheduler.routing import Group
from fastgen.types import Failed, Request, Result

MAX_FAULTS, MAX_FAULTS_OF_LAST = 3, 8
"""Faults of a device in a row, without a finished batch, after which its worker is taken out; the second number is for
the last worker, because nothing can go on without it."""

MOST_MORE = 6
"""At most so many deaths more are needed, one for each death that no row caused."""
MOST_BETWEEN = 3
"""At most so many, one for each death of another worker between those of a row: not all of them need a killer outside,
since other rows may be poison too, and each death costs a start."""

Verdict = Literal["suspect", "accused", "poison"]


class Blame:
    def __init__(self) -> None:
        self.poison_streak = 0
        """Rows in a row that were found to be poison, with none done in between."""
        self._kills: Counter[str] = Counter()
        self._first_kill: dict[str, int] = {}
        """Id of a row -> the number of deaths of workers with rows when it was first alone at one."""
        self._causeless = 0
        self._suspected: dict[str, int] = {}
        """Id of a row -> the last death at which its worker had it."""
        self._not_done: list[int] = []
        """Rows of each such death that are not done yet."""
        self._faults_on: defaultdict[str, set[str]] = defaultdict(set)
        """Id of a row -> workers whose device failed while they had the row."""
        self._accused: list[tuple[Request, Failed, Group]] = []
        self._any_done = False

    def row_done(self, ids: Collection[str] = ()) -> list[Result]:
        """Rows succeeded, so the devices as such are fine. Returns the accused rows, which are now poison."""
        if self._suspected:
            for death in [self._suspected.pop(id) for id in ids if id in self._suspected]:
                self._not_done[death] -= 1
                if not self._not_done[death]:
                    self.died_without_rows()
        self.poison_streak = 0
        self._any_done = True
        return self._convict()

    def close(self) -> list[Result]:
        """Nothing else is left to run. Returns the accused rows, which are now poison.

        Raises:
            EngineError: no row was done in this run, so the devices are as likely to be the cause.
        """
        if self._accused and not self._any_done:
            _, failed, _ = self._accused[0]
            raise EngineError(
                f"no row could be done, and {len(self._accused)} ended their engine process twice, so the device may "
                f"be the cause; row {failed.id}: {failed.message}"
            )
        return self._convict()

    def _convict(self) -> list[Result]:
        convicted: list[Result] = [failed for _, failed, _ in self._accused]
        self._accused.clear()
        return convicted

    def take_back(self, group: Group) -> list[Request]:
        """The accused rows of a backend that takes no more rows."""
        freed = [request for request, _, other in self._accused if other is group]
        self._accused = [entry for entry in self._accused if entry[2] is not group]
        return freed

    def died_without_rows(self) -> None:
        """A worker that had worked died while it held no row, so no row is the cause."""
        self._causeless = min(MOST_MORE, self._causeless + 1)

    def died_with(self, ids: Collection[str]) -> None:
        """A worker died with these rows. If all of them are done before they are on one that dies again, it was none
        of them."""
        self._suspected.update(dict.fromkeys(ids, len(self._not_done)))
        self._not_done.append(len(ids))

    def kills(self, request: Request) -> int:
        """How often a row was alone on its worker when it died."""
        return self._kills[request.id]

    def fault(self, requests: Collection[Request], worker: str) -> None:
        """The device of a worker failed while it had these rows."""
        for request in requests:
            self._faults_on[request.id].add(worker)

    def should_avoid(self, requests: Collection[Request], worker: str, workers: Collection[str]) -> bool:
        """Whether these rows should wait for another one of the workers, since they were on this one when it failed."""
        failed = set().union(*(self._faults_on.get(request.id, ()) for request in requests))
        return worker in failed and not failed.issuperset(workers)

    def killed_alone(self, request: Request, workers: Collection[str], device_fault: bool) -> Verdict:
        """A row was alone on its worker when it died.

        Args:
            workers: the names of all workers that could have it.
            device_fault: whether it died because its device failed.
        """
        self._kills[request.id] += 1
        kills = self._kills[request.id]
        deaths = len(self._not_done) - self._first_kill.setdefault(request.id, len(self._not_done))
        between = 0 if device_fault else min(MOST_BETWEEN, deaths + 1 - kills)
        if kills < failure_policy.MAX_KILLS + max(self._causeless, between):
            return "suspect"
        if not device_fault:
            self.poison_streak += 1
            return "poison"
        if len(self._faults_on[request.id]) < 2 and len(workers) > 1:
            return "suspect"
        return "accused"

    def accuse(self, request: Request, failed: Failed, group: Group) -> None:
        """`failed`: what becomes of the row if it is the cause."""
        self._accused.append((request, failed, group))
