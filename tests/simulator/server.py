"""The simulator's life, its ledger, and the way of one request through it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.simulator import gemini_batches, gemini_side, openai_batches, openai_side
from tests.simulator.batches import Batches
from tests.simulator.fast import Fast
from tests.simulator.faults import EARLY, Faults
from tests.simulator.gate import Gate
from tests.simulator.http import Answer, Connection, Refused, Request
from tests.simulator.prices import Usage
from tests.simulator.records import About, Recorded

SIDES = {"openai": openai_side, "gemini": gemini_side}
BATCHES = {"openai": openai_batches, "gemini": gemini_batches}


class Simulator:
    """prices: a function of (model, Usage) -> USD, or rows for the table in prices.py. models: further known ids.

    slots: more requests at once than that get 429, or wait with queue=True. rate: (requests a second, burst). faults:
    Faults, or a function of Recorded -> fault name or "". record=False keeps counts only. draws: it is a gateway that
    has pictures in its chats only (chat_gateway.py), and answers with the status no_images to all others; streams_only:
    its chats are streams or nothing.
    """

    def __init__(
        self,
        *,
        latency_s: float = 0.0,
        slots: int = 0,
        queue: bool = False,
        rate: tuple[float, float] | None = None,
        seed: int = 0,
        faults: Faults | Callable[[Recorded], str] | None = None,
        prices: Mapping[str, tuple] | Callable[[str, Usage], float] | None = None,
        keys: set[str] | frozenset[str] = frozenset({"test-key"}),
        models: set[str] | frozenset[str] = frozenset(),
        hang_s: float = 60.0,
        retry_after_s: float = 1.0,
        fast: bool = False,
        record: bool = True,
        threads: int = 4,
        host: str = "127.0.0.1",
        port: int = 0,
        gemini_port: int = 0,
        draws: str = "",
        streams_only: bool = False,
        no_images: int = 404,
        batches: Batches | None = None,
    ):
        self.batches = batches or Batches()
        """The Batch APIs; see there for what can happen to a job."""
        self.latency_s, self.seed = latency_s, seed
        self.faults = faults if callable(faults) else (faults or Faults(seed=seed))
        self.gate = Gate(slots, queue, rate, self.faults, retry_after_s)
        self.keys, self.models = set(keys), frozenset(models)
        self.hang_s, self.retry_after_s, self.fast, self.record = hang_s, retry_after_s, fast, record
        self.price = prices if callable(prices) else lambda model, usage: usage.usd(model, prices)
        self.host, self.ports = host, {"openai": port, "gemini": gemini_port}
        self.draws, self.streams_only, self.no_images = draws, streams_only, no_images
        self.made: dict[str, bytes] = {}
        """Pictures that answers name by their address."""
        self.requests: list[Recorded] = []
        self.connections: set[Connection] = set()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="simulator")
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._fast = Fast(self, SIDES, self._loop)
        # One read from a socket: the loop is one thread and empties it before the next read, so all connections share
        # it.
        self.buffer = memoryview(bytearray(1 << 20))
        self.reset()

    def reset(self) -> None:
        """Forgets what was (not what is being answered); the clock of the storm starts again."""
        with self._lock:
            self.requests.clear()
            self.gate.reset()
            self.spent = 0.0
            self.statuses: Counter[int] = Counter()
            self.faulty: Counter[str] = Counter()

    # --- life

    def __enter__(self) -> Simulator:
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator", daemon=True)
        self._thread.start()
        self.revive()
        self.gate.reset()
        return self

    def __exit__(self, *exc) -> None:
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._loop.close()

    def kill(self) -> None:
        """Stops listening and drops every open connection at once, as a crash would."""

        async def stop():
            for server in self._servers:
                server.close()
            self._servers = []
            tasks = [one.task for one in self.connections if one.task is not None]
            for one in list(self.connections):
                one.drop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()

    def revive(self) -> None:
        """Listens again, on the same ports."""

        async def start():
            for api, port in self.ports.items():
                make = partial(Connection, self, api)
                server = await self._loop.create_server(make, self.host, port, backlog=4096, reuse_address=True)
                self.ports[api] = server.sockets[0].getsockname()[1]
                self._servers.append(server)

        asyncio.run_coroutine_threadsafe(start(), self._loop).result()

    @property
    def openai_url(self) -> str:
        return f"http://{self.host}:{self.ports['openai']}/v1"

    @property
    def gemini_url(self) -> str:
        return f"http://{self.host}:{self.ports['gemini']}"

    @property
    def ledger_usd(self) -> float:
        with self._lock:
            return self.spent

    @property
    def peak(self) -> int:
        """The most requests that were being answered at once."""
        return self.gate.peak

    def state(self) -> dict:
        """What happened, in numbers; also at GET /_sim/state."""
        with self._lock:
            return {
                "requests": self.gate.number,
                "at_once_now": self.gate.busy,
                "at_once_most": self.gate.peak,
                "ledger_usd": self.spent,
                "statuses": dict(self.statuses),
                "faults": dict(+self.faulty),
                "seconds": time.monotonic() - self.gate.began,
            }

    # --- one request

    def settle(self, status: int, fault: str, cost: float) -> None:
        with self._lock:
            self.statuses[status] += 1
            self.faulty[fault] += bool(fault)
            self.spent += cost

    def control(self, path: str) -> Answer:
        """/_sim/state and /_sim/reset, for a test that runs the simulator as a process of its own."""
        if path.endswith("/reset"):
            self.reset()
        return Answer(200, json.dumps(self.state()).encode())

    def answer_fast(self, connection: Connection, head: bytes) -> None:
        self._fast.answer(connection, head)

    def put(self, picture: bytes) -> str:
        """Keep a picture; its address, which needs no key."""
        path = f"/made/{len(self.made)}.png"
        self.made[path] = picture
        return f"{self.openai_url.removesuffix('/v1')}{path}"

    def side(self, api: str):
        return SIDES[api]

    def of_batch(self, api: str, request: Request) -> Answer:
        """In a thread of the pool: files and jobs of the Batch APIs."""
        try:
            if "upload_id" not in request.query:  # the address of an upload needs no key
                self.side(api).check_key(request, self.keys)
        except Refused as refused:
            return refused.answer
        return BATCHES[api].answer(self, request)

    async def answer(self, connection: Connection, request: Request) -> None:
        if request.path in self.made:
            connection.send(Answer(200, self.made[request.path], {"content-type": "image/png"}).wire())
            return
        if request.path.startswith("/_sim/"):
            connection.send(self.control(request.path).wire())
            return
        if BATCHES[connection.api].takes(request):
            answer = await self._loop.run_in_executor(self._pool, self.of_batch, connection.api, request)
            connection.send(answer.wire())
            return
        side, gate = SIDES[connection.api], self.gate
        refused = gate.refuse(side)
        record = Recorded(gate.number, connection.api, "", time.monotonic() - gate.began, side.key_of(request))
        if self.record:
            self.requests.append(record)
        if refused is not None:
            record.fault, answer = refused
            record.status = answer.status
            self.settle(answer.status, record.fault, 0.0)
            connection.send(answer.wire())
            return
        await gate.enter()
        try:
            await self.serve(connection, request, record, side)
        finally:
            gate.leave()

    async def serve(self, connection: Connection, request: Request, record: Recorded, side) -> None:
        began = time.monotonic()
        making = self._loop.run_in_executor(self._pool, self.make, side, request, record)
        try:
            answer = await asyncio.shield(making)
            if not answer.early:
                await asyncio.sleep(began + self.latency_s - time.monotonic())
        except asyncio.CancelledError:
            making.add_done_callback(partial(self.abandoned, record))
            raise
        except Exception:
            # The simulator's own mistake, or a test's (a fault that there is not): http.py says it aloud.
            record.status = 501
            self.settle(501, "", 0.0)
            raise
        record.cost_usd = answer.cost
        if answer.way == "send":
            record.status = answer.status
            self.settle(answer.status, record.fault, answer.cost)
            answer.headers.update(self.gate.headers())
            connection.send(answer.wire())
            return
        self.settle(0, record.fault, answer.cost)
        if answer.way == "hang":
            await asyncio.sleep(self.hang_s)
        connection.drop()

    def abandoned(self, record: Recorded, making: asyncio.Future) -> None:
        """The client left before its answer: the work is done and billed all the same."""
        if making.cancelled() or making.exception() is not None:
            return
        record.status, record.cost_usd = 499, making.result().cost
        self.settle(499, record.fault, record.cost_usd)

    def make(self, side, request: Request, record: Recorded) -> Answer:
        """In a thread of the pool: decodes, checks, chooses the fault and draws."""
        more = self.draws, self.streams_only, self.no_images, self.put
        about = About(self.seed, record.number, self.models, self.price, *more)
        try:
            side.check_key(request, self.keys)
            call = side.read(request, record, about)
            if call is None:
                return side.listing(request, about)
            if isinstance(self.faults, Faults):
                with self._lock:
                    record.fault = self.faults.choose(call.kind, record.prompt, record.number)
            else:
                record.fault = self.faults(record) or ""
            if record.fault in EARLY:
                return side.early_fault(record.fault, record.number, self.retry_after_s)
            answer = side.answer(call, record.fault, about)
        except Refused as refused:
            return refused.answer
        if record.fault == "html_200":
            answer = Answer(200, b"<html><body>502 Bad Gateway</body></html>", {"content-type": "text/html"})
        elif record.fault == "cut_json":
            answer.body = answer.body[: len(answer.body) // 2]
        elif record.fault in ("hang", "disconnect"):
            answer.way = record.fault
        return answer
