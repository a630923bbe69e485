"""Another process of a replica, seen from the first one. Does not know what they compute."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from multiprocessing.connection import Connection
from queue import SimpleQueue

from fastgen.backends.diffusion.ranks import messages


class Other:
    """Another process, seen from here."""

    def __init__(self, hello: messages.Hello, threads: int):
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fastgen.backends.diffusion.ranks.follow", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),  # what this process writes to its own output may mean something
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                pass_fds=[theirs.fileno()],
            )
        self.connection = Connection(ours.detach())
        self._sending = threading.Lock()
        self.loaded: Future = Future()
        self.did: SimpleQueue[messages.Did] = SimpleQueue()
        """Its answers to what all do together."""
        self.tell(hello)

    def tell(self, message: object) -> None:
        """From any thread."""
        with self._sending:
            self.connection.send(message)

    @property
    def is_out(self) -> bool:
        return self.process.poll() is not None

    @property
    def end(self) -> str:
        """How it has ended."""
        return ended(self.process.poll() or 0)


def ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"was ended by {name}"
