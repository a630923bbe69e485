"""A worker that is told everything in messages, whatever carries them. It keeps the futures: which batch is where, what
may have been paid, and what each future says when the other end is gone. Knows no processes and no network: a Channel
carries the messages (process.py, ray.py).
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import DiskError, EngineError, ModelError
from fastgen.output.artifacts import LOGS, tail
from fastgen.types import Batch
from fastgen.workers.base import MachineRefused, WorkerDied
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
    ToChild,
    Warned,
    Work,
    decode_from_child,
    encode,
)

log = logging.getLogger(__name__)


class Channel(Protocol):
    """The connection to one child (worker_main), from its start to its end."""

    def send(self, message: bytes) -> None:
        """Raises OSError if the child is gone, BlockingIOError if it takes nothing."""

    def receive(self) -> bytes:
        """The next message. Waits for it. Raises EOFError or OSError once the child is gone or was killed."""

    def kill(self) -> None:
        """End the child at once and do not wait; `receive` then returns. Does nothing if it has ended."""

    def finish(self) -> None:
        """Ask the child to finish its batches and end; wait for that for a few seconds."""

    def wait_killed(self) -> None:
        """Wait a few seconds for the end of a child that was killed."""

    @property
    def alive(self) -> bool: ...

    def ending(self, fault: str) -> tuple[str, bool]:
        """How the child ended, and whether because its device failed. Called once, after `receive` raised.

        Args:
            fault: what the child said of its device before.
        """

    def forget(self) -> None:
        """In a forked process: let go of it and end nothing."""


class MessagingWorker:
    """What workers have in common whose backend runs in a child (worker_main). A subclass says how to reach it."""

    def __init__(self, settings: Settings, device: Device, slots: int):
        self.name = device.name
        self.slots = slots
        self.device = device
        self._engine = _engine_of(settings, device, slots)
        self._work_for(settings)
        self._channel: Channel | None = None
        self.beats = 0
        self.memory_mib = 0
        self.warnings: deque[str] = deque()
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

    def _open_channel(self, hello: Hello) -> Channel:
        """Start a child. Raises DiskError."""
        raise NotImplementedError

    @property
    def model(self) -> str:
        return self._hello.settings.model.name

    @property
    def reusable(self) -> bool:
        """Whether it can work for another run."""
        with self._lock:
            channel = self._channel
            idle = channel is not None and channel.alive and self._death is None and not self._pending
        could_start = not self._ready.done() or self._ready.exception() is None
        return idle and could_start and not self._cancelled

    def fits(self, settings: Settings, device: Device, slots: int) -> bool:
        """Whether its engine is the one that these settings need on that device."""
        return self._engine == _engine_of(settings, device, slots)

    def start(self) -> Future:
        self._death = None
        self._killed_for = self._fault = ""
        self._cancelled = False
        self._channel = channel = self._open_channel(self._hello)
        self._ready = Future()
        self._send(self._hello)
        threading.Thread(target=self._listen, args=(channel,), name=f"worker {self.name}", daemon=True).start()
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
        if self._channel is not None:
            self._killed_for = self._killed_for or reason
            self._channel.kill()

    def stop(self, now: bool = False) -> None:
        channel = self._channel
        if channel is None:
            return
        if not now:
            channel.finish()
        if channel.alive:
            self.kill("it was told to stop")
            channel.wait_killed()

    def forget(self) -> None:
        if self._channel is not None:
            self._channel.forget()
        self._channel = None

    def _work_for(self, settings: Settings) -> None:
        self._hello = Hello(settings, self.device, self.slots)
        self.log = Path(settings.run.out) / LOGS / f"{self.name.replace(':', '-')}.log"

    def _send(self, message: ToChild) -> None:
        """If the child is dead, the listener notices."""
        if self._channel is None:
            return
        try:
            self._channel.send(encode(message))
        except BlockingIOError as error:
            self.kill(str(error))
        except OSError:
            pass

    def _listen(self, channel: Channel) -> None:
        """Turn the child's messages into results of futures until it is gone."""
        ready = self._ready
        try:
            while True:
                message = decode_from_child(channel.receive())
                self.beats += 1
                match message:
                    case Ready(facts):
                        ready.set_result(facts)
                    case CannotStart(text, _, only_here=True):
                        ready.set_exception(MachineRefused(text))
                    case CannotStart(text, by_user):
                        ready.set_exception(ModelError(text) if by_user else EngineError(f"{text} (log: {self.log})"))
                    case Beat(memory_mib):
                        self.memory_mib = memory_mib or self.memory_mib
                    case Warned(text):
                        self.warnings.append(text)
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
            channel.kill()
        self._bury(ready, channel)

    def _bury(self, ready: Future, channel: Channel) -> None:
        """The child is gone: tell everything that waits for it."""
        ended, fault = channel.ending(self._fault)
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


def _engine_of(settings: Settings, device: Device, slots: int) -> tuple:
    return settings.engine_key(), device, slots, os.environ.get(settings.endpoint.key_name or "-")


def ending_of(code: int, fault: str) -> str:
    """How a child ended, by its exit code."""
    if code == DEVICE_FAULT_EXIT:
        return f"{fault or 'its device failed'} (after this only a new process can use the device)"
    if code < 0:
        import signal

        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = " (is the main memory full?)" if name == "SIGKILL" else ""
        return f"the engine process was ended by {name}{hint}"
    return f"the engine process ended with exit code {code}"
