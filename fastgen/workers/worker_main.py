"""The child of a ProcessWorker: opens the backend, runs batches, and ends when its parent does."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NoReturn

from msgspec.structs import replace

from fastgen.backends import registry
from fastgen.backends.base import Backend, told_before_paying, warnings_to
from fastgen.config import backends
from fastgen.config.device_errors import device_fault
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import DiskError, FastgenError, SettingsError
from fastgen.input import stamps
from fastgen.output.sent import SentMarks
from fastgen.types import Batch, Failed, Result
from fastgen.workers.messages import (
    DEVICE_FAULT_EXIT,
    Beat,
    CancelPending,
    CannotStart,
    DeviceFault,
    DiskFull,
    Finished,
    FromChild,
    Hello,
    Paying,
    Ready,
    Reconfigure,
    Warned,
    Work,
    decode_to_child,
    encode,
)

BEAT_S = 1.0
CLOSE_S = 6.0
"""Time for a backend to close; its supervisor ends a server that takes longer."""


class Child:
    """Args: connection: to the parent; hello: what to open, and where."""

    def __init__(self, connection: Connection, hello: Hello):
        self._connection = connection
        self._hello = hello
        self._settings = hello.settings
        self._backend: Backend | None = None
        self._sent = SentMarks(hello.settings.run.out)
        self._send_lock = threading.Lock()

    def listen(self) -> NoReturn:
        """Do what the parent says until it ends. This thread only listens, even while the backend opens, so that it
        notices the parent's end at once."""
        warnings_to(lambda message: self._send(Warned(message)))
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        pool = ThreadPoolExecutor(self._hello.slots, "slot")
        pool.submit(self._open)
        try:
            while True:
                match decode_to_child(self._connection.recv_bytes()):
                    case Work(number, batch):
                        pool.submit(self._run, number, batch)
                    case Reconfigure(settings, log):
                        self._settings = settings
                        self._sent.close()  # the file belongs to a run
                        self._sent = SentMarks(settings.run.out)
                        _log_into(log)
                        if self._backend is not None:
                            self._backend.reconfigure(settings)
                    case CancelPending() if self._backend is not None:
                        self._backend.cancel_pending()
        except (EOFError, OSError):
            self._end()

    def _end(self) -> NoReturn:
        threading.Timer(CLOSE_S, os._exit, (0,)).start()
        if self._backend is not None:
            with suppress(Exception):
                self._backend.cancel_pending()  # nobody would receive what is sent, or paid for, from now on
                self._backend.close()
        os._exit(0)

    def _open(self) -> None:
        try:
            backend = _create(self._settings, self._hello.device)
            facts = backend.open()
            self._backend = backend
            self._send(Ready({**facts, "pid": os.getpid()}))
        except FastgenError as error:
            _log_exception()
            self._send(CannotStart(str(error), isinstance(error, SettingsError)))
        except BaseException as error:
            _log_exception()
            self._end_after_fault(error)
            self._send(CannotStart(f"{type(error).__name__}: {error}", False))

    def _run(self, number: int, batch: Batch) -> None:
        assert self._backend is not None
        try:
            with told_before_paying(lambda: self._pay(number, batch)):
                results = _results(self._backend, batch)
            self._send(Finished(number, results))
        except DiskError as error:
            self._send(DiskFull(number, str(error)))
        except Exception as error:
            _log_exception()
            self._end_after_fault(error)
            message, settings = f"{type(error).__name__}: {error}", self._settings
            who = (settings.backend.name, settings.model.name)
            self._send(Finished(number, [Failed(r.id, "internal", message, "", *who) for r in batch.requests]))

    def _end_after_fault(self, error: BaseException) -> None:
        """End this process if the device has failed for it: CUDA would answer everything else with an error too.
        Other batches of this process come back through its death."""
        if self._settings.backend.is_remote or not (fault := device_fault(error)):
            return
        self._send(DeviceFault(fault))
        with suppress(OSError):
            print(f"the device failed, so this process ends with exit code {DEVICE_FAULT_EXIT}: {fault}", flush=True)
        os._exit(DEVICE_FAULT_EXIT)

    def _pay(self, number: int, batch: Batch) -> None:
        self._sent.add(request.id for request in batch.requests)
        self._send(Paying(number))

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_S)
            self._send(Beat(_memory_mib()))

    def _send(self, message: FromChild) -> None:
        with self._send_lock:
            try:
                self._connection.send_bytes(encode(message))
            except OSError:  # the parent has ended
                os._exit(0)


def _memory_mib() -> int:
    """Main memory of this process; 0 where the kernel does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except (OSError, ValueError, IndexError):
        return 0


def main(descriptor: int) -> NoReturn:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # Ctrl-C and a lost terminal reach the whole group; the parent decides
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    connection = Connection(descriptor)
    hello = decode_to_child(connection.recv_bytes())
    assert isinstance(hello, Hello)
    backends.adopt(link.backend for link in hello.settings.route)
    Child(connection, hello).listen()


def _create(settings: Settings, device: Device) -> Backend:
    """The backend, whose libraries make some hundred thousand objects that stay for good. Looking through them for
    garbage, again and again while they are imported, is a quarter of the time that the imports take (bench/LOG.md)."""
    gc.disable()
    try:
        return registry.create(settings, device)
    finally:
        gc.freeze()
        gc.enable()


def _results(backend: Backend, batch: Batch) -> list[Result]:
    """The results, each with the stamps of the images that it was made from."""
    before = [stamps.of_request(request) for request in batch.requests]  # a change in the meantime is noticed next time
    return [
        replace(result, inputs=inputs) if inputs else result
        for result, inputs in zip(backend.run(batch), before, strict=True)
    ]


def _log_into(path: str) -> None:
    with suppress(OSError):  # if the disk is full, the next write shows it
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)


def _log_exception() -> None:
    """Write to the worker's log, if the disk still accepts it."""
    with suppress(OSError):
        traceback.print_exc()


if __name__ == "__main__":
    main(int(sys.argv[1]))
