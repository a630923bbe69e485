"""The child of a ProcessWorker: opens the backend, runs batches, and ends when its parent does."""

from __future__ import annotations

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

from fastgen.backends import registry
from fastgen.backends.base import told_before_paying
from fastgen.errors import DiskError, FastgenError, SettingsError
from fastgen.types import Batch, Failed
from fastgen.workers.messages import (
    Beat,
    CancelPending,
    CannotStart,
    DiskFull,
    Finished,
    Hello,
    Paying,
    Ready,
    Reconfigure,
    Work,
    decode_to_child,
    encode,
)

BEAT_S = 1.0
CLOSE_S = 6.0
"""For a backend that closes; a server that does not end by then is ended by its supervisor."""


def main(descriptor: int) -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # Ctrl-C and a lost terminal reach the whole group; the parent decides
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    connection = Connection(descriptor)
    hello = decode_to_child(connection.recv_bytes())
    assert isinstance(hello, Hello)
    settings = hello.settings
    send_lock = threading.Lock()

    def send(message) -> None:
        with send_lock:
            try:
                connection.send_bytes(encode(message))
            except OSError:  # the parent is gone
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
            with told_before_paying(lambda: send(Paying(number))):
                results = backend.run(batch)
            send(Finished(number, results))
        except DiskError as error:
            send(DiskFull(number, str(error)))
        except Exception as error:
            _log_exception()
            message = f"{type(error).__name__}: {error}"
            name = settings.model.name
            send(
                Finished(
                    number, [Failed(r.id, "internal", message, "", settings.backend, name) for r in batch.requests]
                )
            )

    def beat() -> None:
        while True:
            time.sleep(BEAT_S)
            send(Beat())

    threading.Thread(target=beat, name="beat", daemon=True).start()
    # This thread only listens, also while the backend opens, so that the parent's end is noticed at once.
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
            elif isinstance(work, CancelPending) and backend is not None:
                backend.cancel_pending()
    except (EOFError, OSError):
        threading.Timer(CLOSE_S, os._exit, (0,)).start()
        if backend is not None:
            with suppress(Exception):
                backend.close()
        os._exit(0)


def _log_into(path: str) -> None:
    with suppress(OSError):  # a disk that takes no more is found by what is written next
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)


def _log_exception() -> None:
    """Into the worker's log, if the disk still takes it."""
    with suppress(OSError):
        traceback.print_exc()


if __name__ == "__main__":
    main(int(sys.argv[1]))
