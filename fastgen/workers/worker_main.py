"""The child of a ProcessWorker: opens the backend, runs batches, and ends when its parent does."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection

from msgspec.structs import replace

from fastgen.backends import registry
from fastgen.backends.base import Backend
from fastgen.config import backends
from fastgen.errors import DiskError, FastgenError, SettingsError
from fastgen.input import stamps
from fastgen.types import Batch, Failed, Result
from fastgen.workers.process import (
    CancelPending,
    CannotStart,
    DiskFull,
    Finished,
    Hello,
    Ready,
    Reconfigure,
    Work,
    decode_to_child,
    encode,
)


def main(descriptor: int) -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # Ctrl-C and a lost terminal reach the whole group; the parent decides
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    connection = Connection(descriptor)
    hello = decode_to_child(connection.recv_bytes())
    assert isinstance(hello, Hello)
    settings = hello.settings
    backends.adopt(link.backend for link in settings.route)
    send_lock = threading.Lock()

    def send(message) -> None:
        with send_lock:
            try:
                connection.send_bytes(encode(message))
            except OSError:  # the parent has ended
                os._exit(0)

    backend = None

    def open_backend() -> None:
        nonlocal backend
        try:
            backend = registry.create(settings, hello.device)
            facts = backend.open()
            send(Ready({**facts, "pid": os.getpid()}))
        except FastgenError as error:
            _log_exception()
            send(CannotStart(str(error), isinstance(error, SettingsError)))
        except BaseException as error:
            _log_exception()
            send(CannotStart(f"{type(error).__name__}: {error}", False))

    def run(number: int, batch: Batch) -> None:
        try:
            send(Finished(number, _run(backend, batch)))
        except DiskError as error:
            send(DiskFull(number, str(error)))
        except Exception as error:
            _log_exception()
            message = f"{type(error).__name__}: {error}"
            name = settings.model.name
            send(
                Finished(
                    number, [Failed(r.id, "internal", message, "", settings.backend.name, name) for r in batch.requests]
                )
            )

    # This thread only listens, even while the backend opens, so that it notices at once when the parent ends.
    pool = ThreadPoolExecutor(hello.slots, "slot")
    pool.submit(open_backend)
    try:
        while True:
            work = decode_to_child(connection.recv_bytes())
            if isinstance(work, Work):
                pool.submit(run, work.number, work.batch)
            elif isinstance(work, Reconfigure):
                settings = work.settings
                _log_into(work.log)
                backend.reconfigure(settings)
            elif isinstance(work, CancelPending) and hasattr(backend, "cancel_pending"):
                backend.cancel_pending()
    except (EOFError, OSError):
        # A server of the backend is stopped in an orderly way; if that hangs, its supervisor does it
        # (backends/remote/supervisor.py).
        threading.Timer(9, os._exit, (0,)).start()
        if backend is not None:
            with suppress(Exception):
                if hasattr(backend, "cancel_pending"):  # nobody would hear of what is sent, or paid, from now on
                    backend.cancel_pending()
                backend.close()
        os._exit(0)


def _run(backend: Backend, batch: Batch) -> list[Result]:
    """The results, each with what tells the pictures that it was made from."""
    before = [stamps.of_request(request) for request in batch.requests]  # what changes meanwhile is seen the next time
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
