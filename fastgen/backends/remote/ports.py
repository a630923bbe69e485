"""A port of this machine for a server that is started as a program, and whether that program is who answers there.

The program is told a number and binds it seconds later, when another may have taken it. So the number is held until
then: on Linux two sockets with SO_REUSEADDR may have one address as long as neither listens, and vLLM sets it, as all
common servers do. Meanwhile nobody gets the number who leaves the choice to the system. Whoever names it may still take
it, so before anything is sent it is looked up who listens there. A Unix socket would need neither, but a program in
--vllm-command that is not vLLM itself, or is in a container, may have none.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

_LISTENS = "0A"  # source: linux/net/tcp_states.h
_LOCAL = ("0100007F", "00000000", "0" * 32, "0000000000000000FFFF00000100007F")
"""127.0.0.1, all addresses of IPv4, of IPv6, and 127.0.0.1 as IPv6: as in /proc/net/tcp and tcp6."""


class Port:
    """A free port of 127.0.0.1, held while the block runs.

    Args:
        hold: False for a program that cannot bind a port that is held.
    """

    def __init__(self, hold: bool = True):
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]
        if not hold or sys.platform != "linux":
            self._socket.close()

    def __enter__(self) -> Port:
        return self

    def __exit__(self, *about: object) -> None:
        self._socket.close()


def is_served_by(parent: int, port: int) -> bool | None:
    """Whether all who listen at a port of 127.0.0.1 belong to sessions that children of a process lead; None if this
    system does not say.

    Args:
        parent: process id.
    """
    listening = _listening(port)
    if not listening:
        return None
    found = _processes()
    leaders = {pid for pid, above, session in found if above == parent and session == pid}
    own: set[str] = set()
    for pid, _, session in found:
        if session in leaders:
            own |= _sockets(pid)
    return listening <= own


def sessions_of(parent: int) -> set[int]:
    """The sessions that children of a process lead; empty if this system does not say."""
    try:
        return {pid for pid, above, session in _processes() if above == parent and session == pid}
    except OSError:
        return set()


def _processes() -> list[tuple[int, int, int]]:
    """Process id, parent and session of all processes."""
    return [(pid, *_parent_and_session(pid)) for pid in map(int, filter(str.isdigit, os.listdir("/proc")))]


def _listening(port: int) -> set[str]:
    """The inodes of the sockets that listen there."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                cells = line.split()
                address, _, number = cells[1].partition(":")
                if cells[3] == _LISTENS and address in _LOCAL and int(number, 16) == port:
                    found.add(cells[9])
    return found


def _parent_and_session(pid: int) -> tuple[int, int]:
    """(0, 0) if it has ended."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return int(words[1]), int(words[3])
    return 0, 0


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open, as far as this one may see them."""
    found = set()
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    found.add(target[len("socket:[") : -1])
    return found
