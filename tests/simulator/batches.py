"""The Batch APIs' files and jobs, whatever the format: openai_batches.py and gemini_batches.py say how they look.

A job is worked through when somebody looks at it after its time, so that nothing depends on a thread. What was done is
billed at half the price.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulator.http import Request
from tests.simulator.records import Recorded

if TYPE_CHECKING:
    from tests.simulator.server import Simulator

PRICE = 0.5


@dataclass
class Job:
    id: str
    api: str
    name: str
    """The client's own name for it."""
    endpoint: str
    file: str
    lines: list[dict]
    created: float
    state: str = "running"
    """running, done, expired, cancelled, failed"""
    error: tuple[str, str] = ("", "")
    answered: list[tuple[str, int, bytes]] = field(default_factory=list)
    """(key, status, body) of what was done."""
    left: list[str] = field(default_factory=list)
    """Keys of what was not."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Names of its files of results."""


class Batches:
    """Args:
    seconds: from a job's creation to its end.
    expire: of the first jobs, the share of requests that are done before they expire; None: it does not.
    refuse: of the first jobs, the code with which they fail at once; "": it does not.
    forget: of the first jobs, how many lines their results lack.
    late_s: until a new job is in the list.
    at_create: called with a job when it was created, before the answer goes out.
    """

    def __init__(
        self,
        seconds: float = 0.0,
        expire: Iterable[float | None] = (),
        refuse: Iterable[str] = (),
        forget: Iterable[int] = (),
        late_s: float = 0.0,
        at_create: Callable[[Job], None] = lambda job: None,
    ):
        self.seconds, self.late_s, self.at_create = seconds, late_s, at_create
        self.expire, self.refuse, self.forget = list(expire), list(refuse), list(forget)
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, Job] = {}
        self.paid: Counter[str] = Counter()
        """Requests that were done and billed, by what they say."""
        self.usd = 0.0
        self.lock = threading.RLock()

    def put(self, data: bytes, prefix: str) -> str:
        with self.lock:
            name = f"{prefix}{len(self.files)}"
            self.files[name] = data
            return name

    def create(self, api: str, name: str, endpoint: str, file: str, lines: list[dict], error: str = "") -> Job:
        with self.lock:
            number = len(self.jobs)
            job = Job(f"batch_{number}", api, name, endpoint, file, lines, time.time())
            code = error or (self.refuse[number] if number < len(self.refuse) else "")
            if code:
                job.state, job.error = "failed", (code, f"the service says {code}")
            self.jobs[job.id] = job
        self.at_create(job)
        return job

    def look(self, sim: Simulator, id: str, work: Callable[[Job, dict], tuple[str, Request, str]]) -> Job | None:
        """A job as it is now. Args: work: a line -> its key, the request in it, and what it says."""
        with self.lock:
            job = self.jobs.get(id)
            if job is not None and job.state == "running" and time.time() >= job.created + self.seconds:
                number = list(self.jobs).index(id)
                share = self.expire[number] if number < len(self.expire) else None
                self.end(sim, job, work, "done" if share is None else "expired", 1.0 if share is None else share)
            return job

    def cancel(self, sim: Simulator, id: str, work: Callable[[Job, dict], tuple[str, Request, str]]) -> Job | None:
        """End a job; what its time was enough for is done."""
        with self.lock:
            job = self.jobs.get(id)
            if job is not None and job.state == "running":
                passed = (time.time() - job.created) / self.seconds if self.seconds else 1.0
                self.end(sim, job, work, "cancelled", min(1.0, passed))
            return job

    def end(self, sim: Simulator, job: Job, work: Callable, state: str, share: float) -> None:
        done = round(len(job.lines) * share)
        number = list(self.jobs).index(job.id)
        lacks = self.forget[number] if number < len(self.forget) else 0
        for place, line in enumerate(job.lines):
            key, request, said = work(job, line)
            if place >= done:
                job.left.append(key)
            elif place >= lacks:
                status, body, usd = self.answer(sim, job.api, request)
                self.paid[said] += usd > 0
                self.usd += usd
                sim.settle(status, "", usd)
                job.answered.append((key, status, body))
        job.state = state

    def answer(self, sim: Simulator, api: str, request: Request) -> tuple[int, bytes, float]:
        side = sim.side(api)
        record = Recorded(sim.gate.number, api, "", 0.0, "")
        answer = sim.make(side, request, record)
        if answer.way != "send" or not answer.body.startswith(b"{"):
            return 500, b'{"error":{"code":500,"message":"The server had an error.","type":"server_error"}}', 0.0
        try:
            json.loads(answer.body)
        except ValueError:
            return 500, b'{"error":{"code":500,"message":"The server had an error.","type":"server_error"}}', 0.0
        return answer.status, answer.body, PRICE * answer.cost

    def listed(self, api: str) -> list[Job]:
        """Those that are in the list by now, the newest first."""
        with self.lock:
            now = time.time()
            return [job for job in reversed(self.jobs.values()) if job.api == api and now >= job.created + self.late_s]
