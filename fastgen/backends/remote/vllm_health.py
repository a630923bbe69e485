"""Whether our vLLM server still works. A process of it that was stopped, a kernel that never ends and a deadlock leave
it alive, but nothing comes from it any more. Does not know rows, and does not start servers.

A server works if it answers requests, or if the counters of its engine (`/metrics`) go on, as they do with every step.
So a long answer is no reason, and an engine that hangs behind a server that still talks is one. A program in
--vllm-command that has no such counters works as long as it answers at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.http_client import Client

LOOK_EVERY_S, ANSWER_S = 2.0, 3.0
"""Seconds between two looks, and how long the server may take to answer one."""
LONGEST_LOOK_S = LOOK_EVERY_S + ANSWER_S + 1
"""The time between two looks counts as at most this: this process itself may have been stopped."""
STILL_S, FIRST_STILL_S = 60.0, 600.0
"""How long nothing may come from a server that has requests, and the same until its first answer: it may compile."""
TIMES = 10.0
"""It may also be still for this many times its longest pause so far, at most for the --timeout of its requests."""


@dataclass
class Pulse:
    """Pure: is told what was seen, and decides.

    Args:
        timeout_s: of one request.
    """

    timeout_s: float
    still_s: float = 0.0
    """Seconds in which it had requests and nothing came."""
    longest_s: float = 0.0
    _answers: int | None = None
    _counters: int | None = None

    def look(self, passed_s: float, asked: bool, answers: int, counters: int | None, talks: bool) -> bool:
        """Whether it hangs.

        Args:
            passed_s: seconds since the last look.
            asked: whether it has requests.
            answers: how many it has answered so far.
            counters: stands for the counters of its engine; None if it shows none.
            talks: whether it answered this look.
        """
        works = answers != self._answers or (talks and (counters is None or counters != self._counters))
        self._answers, self._counters = answers, counters if talks else self._counters
        if works or not asked:
            self.longest_s = max(self.longest_s, self.still_s if works else 0.0)
            self.still_s = 0.0
            return False
        self.still_s += passed_s
        return self.still_s >= self.limit_s

    @property
    def limit_s(self) -> float:
        if not self._answers:
            return FIRST_STILL_S
        return max(STILL_S, min(TIMES * self.longest_s, self.timeout_s))


class Health:
    """Looks at a server from a thread of its own until it hangs or `stop` is called.

    Args:
        url: of the server, without /v1.
        timeout_s: of one request.
        asked: how many requests it has now.
        answers: how many it has answered so far.
        on_hang: called once, with the reason, if it hangs.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        asked: Callable[[], int],
        answers: Callable[[], int],
        on_hang: Callable[[str], None],
    ):
        self._url, self._asked, self._answers, self._on_hang = f"{url}/metrics", asked, answers, on_hang
        self._first = answers()
        self._pulse = Pulse(timeout_s)
        self._client = Client(url, ANSWER_S, at_once=1, direct=True)
        self._ends = threading.Event()
        threading.Thread(target=self._watch, name="health", daemon=True).start()

    def stop(self) -> None:
        self._ends.set()

    def _watch(self) -> None:
        looked_at = time.monotonic()
        while not self._ends.wait(LOOK_EVERY_S):
            asked = self._asked()
            talks, counters = self._look() if asked else (False, None)
            passed_s = min(time.monotonic() - looked_at, LONGEST_LOOK_S)
            looked_at = time.monotonic()
            if not self._pulse.look(passed_s, asked > 0, self._answers() - self._first, counters, talks):
                continue
            self._client.close()
            if not self._ends.is_set():
                self._on_hang(
                    f"no sign of work for {self._pulse.still_s:.0f} s with {asked} request{'s' * (asked > 1)}"
                )
            return

    def _look(self) -> tuple[bool, int | None]:
        """Whether it answers, and what stands for its counters."""
        try:
            return True, counters_of(self._client.send("GET", self._url, {}).data)
        except Fault:
            return False, None


def counters_of(metrics: bytes) -> int | None:
    """A number that changes with vLLM's own counters; None if there are none."""
    own = [line for line in metrics.split(b"\n") if line.startswith(b"vllm:")]
    return crc32(b"\n".join(own)) if own else None
