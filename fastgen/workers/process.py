"""A worker that is a process of its own: one GPU, or some CPU threads. Whatever kills it, this process lives on.

Messages are msgpack over a socket pair. The child ends as soon as its end of the pair closes, so none outlives us. When
its run is over it may go on with another one that needs the same engine: idle_pool.py.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from fastgen.config.hardware import Device, child_environment
from fastgen.config.settings import Settings
from fastgen.errors import DiskError, EngineError, ModelError
from fastgen.output.artifacts import LOGS, tail
from fastgen.types import Batch, Result
from fastgen.workers.base import WorkerDied

log = logging.getLogger(__name__)


class Hello(msgspec.Struct, tag=True):
    """First message to the child: what to open."""

    settings: Settings
    device: Device
    slots: int


class Work(msgspec.Struct, tag=True):
    number: int
    batch: Batch


class Reconfigure(msgspec.Struct, tag=True):
    """From now on the work is for another run, and its folder has the log. Comes when nothing is under way."""

    settings: Settings
    log: str


class CancelPending(msgspec.Struct, tag=True):
    """Do not begin what has not begun; hand it back."""


class Ready(msgspec.Struct, tag=True):
    """First message from the child when its backend is open."""

    facts: dict


class CannotStart(msgspec.Struct, tag=True):
    message: str
    by_user: bool
    """Whether the user can fix it (a ModelError)."""


class Finished(msgspec.Struct, tag=True):
    number: int
    results: list[Result]


class DiskFull(msgspec.Struct, tag=True):
    number: int
    message: str


encode = msgspec.msgpack.Encoder().encode
decode_to_child = msgspec.msgpack.Decoder(Hello | Work | Reconfigure | CancelPending).decode
_decode_from_child = msgspec.msgpack.Decoder(Ready | CannotStart | Finished | DiskFull).decode


class ProcessWorker:
    def __init__(self, settings: Settings, device: Device, slots: int):
        self.name = device.name
        self.slots = slots
        self.device = device
        self._engine = _engine_of(settings, device, slots)
        self._work_for(settings)
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._pending: dict[int, Future] = {}
        self._ready: Future = Future()
        self._count = 0
        self._lock = threading.Lock()
        self._death: str | None = None
        self._cancelled = False

    @property
    def model(self) -> str:
        return self._hello.settings.model.name

    @property
    def reusable(self) -> bool:
        """Whether it could go on with another run."""
        with self._lock:
            idle = (
                self._process is not None and self._process.poll() is None and self._death is None and not self._pending
            )
        could_start = not self._ready.done() or self._ready.exception() is None
        return idle and could_start and not self._cancelled

    def fits(self, settings: Settings, device: Device, slots: int) -> bool:
        """Whether its engine is the one that these settings need there."""
        return self._engine == _engine_of(settings, device, slots)

    def start(self) -> Future:
        self._death = None
        self._cancelled = False
        ours, theirs = socket.socketpair()
        environment = {**child_environment(self.device), "OMP_NUM_THREADS": str(self.device.threads)}
        try:
            log = self.log.open("ab")
        except OSError as error:
            raise DiskError(f"cannot write {self.log}: {error.strerror}") from None
        with theirs, log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fastgen.workers.worker_main", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=[theirs.fileno()],
            )
        self._connection = Connection(ours.detach())
        self._ready = Future()
        with suppress(OSError):  # if it died at once, the listener finds out
            self._connection.send_bytes(encode(self._hello))
        threading.Thread(
            target=self._listen, args=(self._connection, self._process), name=f"worker {self.name}", daemon=True
        ).start()
        return self._ready

    def reconfigure(self, settings: Settings) -> Future:
        """Go on with another run that this worker `fits`. The future is as of `start`: it may be ready already."""
        self._work_for(settings)
        connection, message = self._connection, encode(Reconfigure(settings, str(self.log)))

        def tell(ready: Future) -> None:
            if ready.exception() is None:
                with suppress(OSError):  # if it is dead, the first batch finds out
                    connection.send_bytes(message)

        self._ready.add_done_callback(tell)  # before any of the caller's, so ahead of all work
        return self._ready

    def submit(self, batch: Batch) -> Future:
        future: Future = Future()
        with self._lock:
            if self._death is not None:
                future.set_exception(WorkerDied(self._death, idle=True))
                return future
            self._count += 1
            number = self._count
            self._pending[number] = future
        with suppress(OSError):  # if it is dead, the listener fails the future
            self._connection.send_bytes(encode(Work(number, batch)))
        return future

    def cancel_pending(self) -> None:
        self._cancelled = True
        if self._connection is not None:
            with suppress(OSError):
                self._connection.send_bytes(encode(CancelPending()))

    def stop(self, now: bool = False) -> None:
        process, connection = self._process, self._connection
        if process is None or connection is None:
            return
        if now:
            process.kill()
        else:
            try:
                # End of input; the child finishes what it holds and leaves.
                with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
                    duplicate.shutdown(socket.SHUT_WR)
                process.wait(timeout=12)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()
        process.wait()

    def forget(self) -> None:
        """In a forked process: the engine is our parent's. Without our copy of its line it ends when the parent
        does."""
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _work_for(self, settings: Settings) -> None:
        self._hello = Hello(settings, self.device, self.slots)
        self.log = Path(settings.out) / LOGS / f"{self.name.replace(':', '-')}.log"

    def _listen(self, connection: Connection, process: subprocess.Popen) -> None:
        """Turn the child's messages into results of futures, until it is gone."""
        ready = self._ready
        try:
            while True:
                match _decode_from_child(connection.recv_bytes()):
                    case Ready(facts):
                        ready.set_result(facts)
                    case CannotStart(text, by_user):
                        ready.set_exception(ModelError(text) if by_user else EngineError(f"{text} (log: {self.log})"))
                    case Finished(number, results):
                        self._take(number).set_result(results)
                    case DiskFull(number, text):
                        self._take(number).set_exception(DiskError(text))
        except (EOFError, OSError):
            pass
        except Exception:
            # A message that cannot be read: nobody would ever hear of its batch, so end what sent it.
            log.exception("worker %s", self.name)
            process.kill()
        code = process.wait()
        connection.close()
        error = WorkerDied(f"{_ending(code)}{self._last_words()}")
        with self._lock:
            self._death = str(error)
            pending, self._pending = list(self._pending.values()), {}
        if not ready.done():
            ready.set_exception(error)
        for future in pending:
            future.set_exception(error)

    def _take(self, number: int) -> Future:
        with self._lock:
            return self._pending.pop(number)

    def _last_words(self) -> str:
        words = tail(self.log)
        return f"; the end of {self.log}:\n{words}" if words else ""


def _engine_of(settings: Settings, device: Device, slots: int) -> tuple:
    return settings.engine(), device, slots, os.environ.get(settings.endpoint.key_name or "-")


def _ending(code: int) -> str:
    if code < 0:
        import signal

        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = " (out of main memory?)" if name == "SIGKILL" else ""
        return f"the engine process was ended by {name}{hint}"
    return f"the engine process ended with exit code {code}"
