"""A worker that is a process of its own, on one GPU or some CPU threads. Whatever kills it, this process survives.

Messages are msgpack over a socket pair. The child ends as soon as our end of the pair closes, so no child outlives us.
After its run it may work for another one that needs the same engine: see idle_pool.py.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from fastgen.config.hardware import Device, child_environment
from fastgen.config.settings import Settings
from fastgen.errors import DiskError, EngineError, ModelError
from fastgen.output.artifacts import LOGS, tail
from fastgen.types import Batch
from fastgen.workers.base import WorkerDied
from fastgen.workers.messages import (
    DEVICE_FAULT_EXIT,
    Beat,
    CancelPending,
    CannotStart,
    DeviceFault,
    DiskFull,
    Finished,
    Hello,
    Paying,
    Ready,
    Reconfigure,
    Work,
    decode_from_child,
    encode,
)

log = logging.getLogger(__name__)

STOP_S = 8.0
"""Time for a child that was asked to stop: its backend may have a server to stop in an orderly way, which takes up to 6
s (worker_main.CLOSE_S). Together with run.GRACE_S this stays under the 30 s after which Slurm and Kubernetes kill."""
KILLED_S = 5.0
"""Time for a child that was killed, if somebody waits for it. A child stuck in a hung driver never ends."""
BURIED_S = 30.0
"""The same if only its batches wait: freeing a GPU's memory may take some seconds."""
SEND_S = 20.0
"""Time for a message to the child. Its main thread only listens, so one that takes nothing for so long is stopped."""


class ProcessWorker:
    records_sent = True

    def __init__(self, settings: Settings, device: Device, slots: int):
        self.name = device.name
        self.slots = slots
        self.device = device
        self._engine = _engine_of(settings, device, slots)
        self._work_for(settings)
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self.beats = 0
        self._pending: dict[int, Future] = {}
        self._paying: set[int] = set()
        """Batches for which something that costs money may have been sent."""
        self._ready: Future = Future()
        self._count = 0
        self._lock = threading.Lock()
        self._death: str | None = None
        self._killed_for = ""
        self._fault = ""
        """What the child said of its device before it ended."""
        self._cancelled = False

    @property
    def model(self) -> str:
        return self._hello.settings.model.name

    @property
    def reusable(self) -> bool:
        """Whether it can work for another run."""
        with self._lock:
            idle = (
                self._process is not None and self._process.poll() is None and self._death is None and not self._pending
            )
        could_start = not self._ready.done() or self._ready.exception() is None
        return idle and could_start and not self._cancelled

    def fits(self, settings: Settings, device: Device, slots: int) -> bool:
        """Whether its engine is the one that these settings need on that device."""
        return self._engine == _engine_of(settings, device, slots)

    def start(self) -> Future:
        self._death = None
        self._killed_for = self._fault = ""
        self._cancelled = False
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(SEND_S), 0))
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
        self._send(self._hello)
        threading.Thread(
            target=self._listen, args=(self._connection, self._process), name=f"worker {self.name}", daemon=True
        ).start()
        return self._ready

    def reconfigure(self, settings: Settings) -> Future:
        """Continue with another run that this worker `fits`. The future is like that of `start`; it may be ready
        already."""
        self._work_for(settings)
        message = Reconfigure(settings, str(self.log))

        def tell(ready: Future) -> None:
            if ready.exception() is None:
                self._send(message)

        self._ready.add_done_callback(tell)  # before any batch of the caller, so ahead of all work
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
        self._send(Work(number, batch))
        return future

    def cancel_pending(self) -> None:
        self._cancelled = True
        self._send(CancelPending())

    def kill(self, reason: str) -> None:
        process, connection = self._process, self._connection
        if process is None or connection is None:
            return
        self._killed_for = self._killed_for or reason
        process.kill()
        # The listener need not wait for the end of the process, which a hung driver may block for ever.
        with suppress(OSError):
            _shut(connection, socket.SHUT_RDWR)

    def stop(self, now: bool = False) -> None:
        process, connection = self._process, self._connection
        if process is None or connection is None:
            return
        if not now:
            with suppress(OSError, subprocess.TimeoutExpired):
                _shut(connection, socket.SHUT_WR)  # end of input: the child finishes its batches and exits
                process.wait(STOP_S)
        if process.poll() is None:
            self.kill("it was told to stop")
            with suppress(subprocess.TimeoutExpired):
                process.wait(KILLED_S)

    def forget(self) -> None:
        """In a forked process: the engine belongs to our parent. Closing our copy of the socket lets it end when the
        parent ends."""
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _work_for(self, settings: Settings) -> None:
        self._hello = Hello(settings, self.device, self.slots)
        self.log = Path(settings.run.out) / LOGS / f"{self.name.replace(':', '-')}.log"

    def _send(self, message: Hello | Work | Reconfigure | CancelPending) -> None:
        """If the child is dead, the listener notices."""
        if self._connection is None:
            return
        try:
            self._connection.send_bytes(encode(message))
        except BlockingIOError:
            self.kill(f"it accepted no message for {SEND_S:.0f} s")
        except OSError:
            pass

    def _listen(self, connection: Connection, process: subprocess.Popen) -> None:
        """Turn the child's messages into results of futures until it is gone."""
        ready = self._ready
        try:
            while True:
                message = decode_from_child(connection.recv_bytes())
                self.beats += 1
                match message:
                    case Ready(facts):
                        ready.set_result(facts)
                    case CannotStart(text, by_user):
                        ready.set_exception(ModelError(text) if by_user else EngineError(f"{text} (log: {self.log})"))
                    case Beat():
                        pass
                    case DeviceFault(text):
                        self._fault = text
                    case Paying(number):
                        self._paying.add(number)
                    case Finished(number, results):
                        self._take(number).set_result(results)
                    case DiskFull(number, text):
                        self._take(number).set_exception(DiskError(text))
        except (EOFError, OSError):
            pass
        except Exception:
            # A message that cannot be read: its batch would never be answered, so end the process that sent it.
            log.exception("worker %s", self.name)
            process.kill()
        self._bury(ready, connection, process)

    def _bury(self, ready: Future, connection: Connection, process: subprocess.Popen) -> None:
        """The child is gone: tell everything that waits for it."""
        try:
            code = process.wait(BURIED_S)
            ended, fault = _ending(code, self._fault), code == DEVICE_FAULT_EXIT
        except subprocess.TimeoutExpired:
            ended, fault = "the engine process was killed but does not end (is a driver hung?)", False
        connection.close()
        text = self._killed_for or f"{ended}{self._last_words()}"
        with self._lock:
            self._death = text
            pending, self._pending = self._pending, {}
            paying, self._paying = self._paying, set()
        if not ready.done():
            ready.set_exception(WorkerDied(text, device_fault=fault))
        for number, future in pending.items():
            future.set_exception(WorkerDied(text, may_cost=number in paying, device_fault=fault))

    def _take(self, number: int) -> Future:
        with self._lock:
            self._paying.discard(number)
            return self._pending.pop(number)

    def _last_words(self) -> str:
        words = tail(self.log)
        return f"; the end of {self.log}:\n{words}" if words else ""


def _shut(connection: Connection, way: int) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(way)


def _engine_of(settings: Settings, device: Device, slots: int) -> tuple:
    return settings.engine_key(), device, slots, os.environ.get(settings.endpoint.key_name or "-")


def _ending(code: int, fault: str) -> str:
    if code == DEVICE_FAULT_EXIT:
        return f"{fault or 'its device failed'} (after this only a new process can use the device)"
    if code < 0:
        import signal

        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = " (is the main memory full?)" if name == "SIGKILL" else ""
        return f"the engine process was ended by {name}{hint}"
    return f"the engine process ended with exit code {code}"
