"""Who gets in: the storm, the rate, and the slots, for reasons that have nothing to do with what is asked.

All of it runs in the loop's thread.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque

from tests.simulator.faults import Faults
from tests.simulator.http import Answer


def as_200(answer: Answer) -> Answer:
    """The same error as gateways pass it on: its status is only in the body, and no header says how long to wait."""
    body = json.loads(answer.body)
    body["error"]["code"] = answer.status
    return Answer(200, json.dumps(body).encode(), early=True)


class Gate:
    def __init__(self, slots: int, queue: bool, rate: tuple[float, float] | None, faults, retry_after_s: float):
        self.slots, self.queue, self.rate, self.retry_after_s = slots, queue, rate, retry_after_s
        self.faults = faults if isinstance(faults, Faults) else Faults()
        self.busy = 0
        self.waiting: deque[asyncio.Future] = deque()
        self.reset()

    def reset(self) -> None:
        self.number = self.peak = 0
        self.tokens = (self.rate or (0, 0))[1]
        self.began = self.filled = time.monotonic()

    @property
    def full(self) -> bool:
        return bool(self.slots) and self.busy >= self.slots

    def refuse(self, side) -> tuple[str, Answer] | None:
        """Counts the request. "storm", "rate" or "slots", and the answer; None: it may come in."""
        self.number += 1
        if self.faults.stormy(time.monotonic() - self.began):
            name = "rate_limit_after" if self.number % 2 else "rate_limit"
            answer = side.early_fault(name, self.number, self.retry_after_s)
            return "storm", as_200(answer) if self.faults.in_200 else answer
        if self.rate is not None:
            now, (speed, burst) = time.monotonic(), self.rate
            self.tokens = min(burst, self.tokens + (now - self.filled) * speed)
            self.filled = now
            if self.tokens < 1:
                wait = (1 - self.tokens) / speed
                answer = side.early_fault("rate_limit_after", self.number, wait)
                answer.headers.update(self.headers(wait))
                return "rate", answer
            self.tokens -= 1
        if self.full and not self.queue:
            return "slots", side.early_fault("rate_limit", self.number, self.retry_after_s)
        return None

    def headers(self, wait: float = 0.0) -> dict[str, str]:
        """x-ratelimit-*, when there is a rate."""
        if self.rate is None:
            return {}
        head = {"limit": str(int(self.rate[1])), "remaining": str(int(self.tokens)), "reset": f"{wait:.3f}s"}
        return {f"x-ratelimit-{name}-requests": value for name, value in head.items()}

    def take(self) -> None:
        self.busy += 1
        self.peak = max(self.peak, self.busy)

    async def enter(self) -> None:
        if not self.full:
            self.take()
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Hands the slot to who waits longest, so that nobody who comes now can take it first."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.busy -= 1
