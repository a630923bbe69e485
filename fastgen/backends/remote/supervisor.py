"""Runs a program in a session of its own, and ends the whole session when its own stdin closes: python -m ...
COMMAND...

The process that started it has the other end of that pipe, so the program cannot outlive it, even if it is killed.
vLLM's main process leaves its engine processes behind when it is killed; ending the session's process group does not.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

GRACE_S = 3.0
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The end of stdin decides."""
_PR_SET_PDEATHSIG = 1  # source: linux/prctl.h


def _with_parent() -> None:
    """Runs in the program before it starts: handle signals as usual and, on Linux, end with this process if it is
    killed itself."""
    for name in _IGNORED:
        signal.signal(name, signal.SIG_DFL)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main(command: list[str]) -> int:
    for name in _IGNORED:
        signal.signal(name, signal.SIG_IGN)
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_with_parent, restore_signals=True
    )
    while child.poll() is None:
        ready, _, _ = select.select([0], [], [], 0.5)
        if ready and not os.read(0, 4096):
            break
    _end(child)
    return child.returncode if child.returncode is not None else 1


def _end(child: subprocess.Popen) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
