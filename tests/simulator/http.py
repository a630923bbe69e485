"""The HTTP/1.1 side: reads whole requests from keep-alive connections and writes whole answers.

Written on asyncio's protocols, because a test may hold hundreds of connections open at once, and because a "crash" is
then one call. With fast=True a connection throws the bodies away as they come in (they are never copied) and its
answers are made beforehand: one core then takes in more than a thousand requests of a megapixel each a second.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from tests.simulator.server import Simulator

MAX_HEAD = 65536
MAX_BODY = 1 << 30
LENGTH = re.compile(rb"\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(slots=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> dict:
        """The body as an object; ValueError when it is none."""
        value = json.loads(self.body)
        if not isinstance(value, dict):
            raise ValueError("not an object")
        return value


@dataclass(slots=True)
class Answer:
    """What goes back. `cost` is billed when it is sent; way is "send", "hang" or "disconnect"."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    cost: float = 0.0
    way: str = "send"
    # Refusals that a service gives before it does any work come at once, all others after the latency.
    early: bool = False

    def wire(self) -> bytes:
        head = {"content-type": "application/json", **self.headers, "content-length": str(len(self.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        phrase = HTTPStatus(self.status).phrase
        return f"HTTP/1.1 {self.status} {phrase}\r\n{lines}\r\n".encode("latin-1") + self.body


class Refused(Exception):
    """Raised while a request is read: what is wrong with it, as the answer to send."""

    def __init__(self, answer: Answer):
        super().__init__(answer.body[:200])
        self.answer = answer


def read_head(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    url = urlsplit(target)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Request(method, unquote(url.path), parse_qs(url.query), headers)


class Connection(asyncio.BufferedProtocol):
    """One client's connection; at most one request of it is being answered."""

    def __init__(self, sim: Simulator, api: str):
        self.sim, self.api = sim, api
        self.fast, self.buffer = sim.fast, sim.buffer
        self.transport: asyncio.Transport | None = None
        self.head = bytearray()  # what came in and is not a whole head yet
        self.request: Request | bytes | None = None  # its body is being read; in fast mode the bare head
        self.body = bytearray()
        self.left = 0
        self.task: asyncio.Task | None = None

    def connection_made(self, transport):
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sim.connections.add(self)

    def connection_lost(self, exc):
        self.transport = None
        self.sim.connections.discard(self)
        if self.task is not None:
            self.task.cancel()

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, count):
        if self.request is not None and count <= self.left:
            if not self.fast:
                self.body += self.buffer[:count]
            self.left -= count
            if not self.left:
                self.whole()
        else:
            self.head += self.buffer[:count]
            self.next_head()

    def next_head(self) -> None:
        """Begins a request when its head is there and none is at work (a client that pipelines waits its turn)."""
        if self.request is not None or self.task is not None:
            return
        end = self.head.find(b"\r\n\r\n")
        if end < 0:
            if len(self.head) > MAX_HEAD:
                self.refuse(431)
            return
        head, rest = bytes(self.head[:end]), self.head[end + 4 :]
        found = LENGTH.search(head)
        self.left = int(found.group(1)) if found else 0
        if self.left > MAX_BODY:
            self.refuse(413)
            return
        if self.fast:
            self.request = head
        else:
            try:
                self.request = read_head(head)
            except ValueError:
                self.refuse(400)
                return
            if "chunked" in self.request.headers.get("transfer-encoding", "").lower():
                self.refuse(411)
                return
            if self.request.headers.get("expect", "").lower() == "100-continue":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.body = bytearray() if self.fast else bytearray(rest[: self.left])
        self.head = rest[self.left :]
        self.left -= min(self.left, len(rest))
        if not self.left:
            self.whole()

    def whole(self) -> None:
        request, self.request = self.request, None
        if self.fast:
            self.sim.answer_fast(self, request)
            return
        request.body, self.body = bytes(self.body), bytearray()
        self.task = asyncio.get_running_loop().create_task(self.sim.answer(self, request))
        self.task.add_done_callback(self.answered)

    def answered(self, task: asyncio.Task) -> None:
        self.task = None
        if not task.cancelled() and task.exception() is not None:
            # A fault of the simulator itself: loud, and told apart from the simulated ones by its status.
            asyncio.get_running_loop().call_exception_handler({"message": "simulator", "exception": task.exception()})
            self.refuse(501)
        elif self.head and self.transport is not None:
            self.next_head()

    def send(self, wire: bytes) -> bool:
        """False: the client has gone."""
        if self.transport is None or self.transport.is_closing():
            return False
        self.transport.write(wire)
        return True

    def refuse(self, status: int) -> None:
        self.send(Answer(status, b"", {"connection": "close"}).wire())
        if self.transport is not None:
            self.transport.close()

    def drop(self) -> None:
        """Ends the connection at once (RST), as a crash or a cut cable would."""
        if self.transport is not None:
            self.transport.abort()
