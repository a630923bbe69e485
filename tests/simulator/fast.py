"""Fast mode: a constant answer after the latency. Nothing is read, recorded or billed; only the gate and the lot count.

A fault by lot that is not one of the early refusals is a connection that is cut after the latency (hang: after hang_s).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from tests.simulator.faults import EARLY, Faults
from tests.simulator.http import Connection

if TYPE_CHECKING:
    from tests.simulator.server import Simulator


class Fast:
    def __init__(self, sim: Simulator, sides: dict, loop: asyncio.AbstractEventLoop):
        self.sim, self.sides, self.loop = sim, sides, loop
        self.made = {api: side.constant().wire() for api, side in sides.items()}
        self.line: deque[Connection] = deque()

    def answer(self, connection: Connection, head: bytes) -> None:
        sim, gate = self.sim, self.sim.gate
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/_sim/"):
            connection.send(sim.control(path.decode()).wire())
            connection.next_head()
            return
        side = self.sides[connection.api]
        refused, fault = gate.refuse(side), ""
        if refused is None and isinstance(sim.faults, Faults) and sim.faults.share:
            fault = sim.faults.choose("chat" if connection.api == "openai" else "gemini text", "", gate.number)
            if fault in EARLY:
                refused = fault, side.early_fault(fault, gate.number, sim.retry_after_s)
        if refused is not None:
            sim.settle(refused[1].status, refused[0], 0.0)
            connection.send(refused[1].wire())
            connection.next_head()
        elif fault:
            sim.settle(0, fault, 0.0)
            self.loop.call_later(sim.hang_s if fault == "hang" else sim.latency_s, connection.drop)
        elif gate.full:
            self.line.append(connection)
        else:
            gate.take()
            self.loop.call_later(sim.latency_s, self.answered, connection)

    def answered(self, connection: Connection) -> None:
        self.sim.statuses[200] += 1
        if connection.send(self.made[connection.api]):
            connection.next_head()
        if self.line:
            self.loop.call_later(self.sim.latency_s, self.answered, self.line.popleft())
        else:
            self.sim.gate.busy -= 1
