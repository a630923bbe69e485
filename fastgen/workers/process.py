"""A worker that is a process of its own, on one GPU or some CPU threads. Whatever kills it, this process survives.

Messages are msgpack over a socket pair. The child ends as soon as our end of the pair closes, so no child outlives us.
After its run it may work for another one that needs the same engine: see idle_pool.py.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from fastgen.config.hardware import child_environment
from fastgen.errors import DiskError
from fastgen.workers.messages import DEVICE_FAULT_EXIT, Hello
from fastgen.workers.messaging import Channel, MessagingWorker, ending_of

STOP_S = 8.0
"""Time for a child that was asked to stop: its backend may have a server to stop in an orderly way, which takes up to 6
s (worker_main.CLOSE_S). Together with run.GRACE_S this stays under the 30 s after which Slurm and Kubernetes kill."""
KILLED_S = 5.0
"""Time for a child that was killed, if somebody waits for it. A child stuck in a hung driver never ends."""
BURIED_S = 30.0
"""The same if only its batches wait: freeing a GPU's memory may take some seconds."""
SEND_S = 20.0
"""Time for a message to the child. Its main thread only listens, so one that takes nothing for so long is stopped."""


class ProcessWorker(MessagingWorker):
    records_sent = True

    def _open_channel(self, hello: Hello) -> Channel:
        return ProcessChannel(hello, str(self.log))


class ProcessChannel:
    """A child process of this one, and the socket pair to it.

    Args:
        hello: says for which device; it is not sent.
        log: the file that gets the output of the child.

    Raises:
        DiskError: the log cannot be written.
    """

    def __init__(self, hello: Hello, log: str):
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(SEND_S), 0))
        environment = {**child_environment(hello.device), "OMP_NUM_THREADS": str(hello.device.threads)}
        try:
            output = Path(log).open("ab")  # noqa: SIM115
        except OSError as error:
            raise DiskError(f"cannot write {log}: {error.strerror}") from None
        with theirs, output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fastgen.workers.worker_main", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=[theirs.fileno()],
            )
        self._connection = Connection(ours.detach())

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except BlockingIOError:
            raise BlockingIOError(f"it accepted no message for {SEND_S:.0f} s") from None

    def receive(self) -> bytes:
        return self._connection.recv_bytes()

    def kill(self) -> None:
        self._process.kill()
        # The listener need not wait for the end of the process, which a hung driver may block for ever.
        with suppress(OSError):
            self._shut(socket.SHUT_RDWR)

    def finish(self) -> None:
        with suppress(OSError, subprocess.TimeoutExpired):
            self._shut(socket.SHUT_WR)  # end of input: the child finishes its batches and exits
            self._process.wait(STOP_S)

    def wait_killed(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(KILLED_S)

    def ending(self, fault: str) -> tuple[str, bool]:
        try:
            code = self._process.wait(BURIED_S)
        except subprocess.TimeoutExpired:
            return "the engine process was killed but does not end (is a driver hung?)", False
        finally:
            self._connection.close()
        return ending_of(code, fault), code == DEVICE_FAULT_EXIT

    def forget(self) -> None:
        """Closing this copy of the socket lets the child end when its parent ends."""
        self._connection.close()

    def _shut(self, way: int) -> None:
        with socket.socket(fileno=os.dup(self._connection.fileno())) as duplicate:
            duplicate.shutdown(way)
