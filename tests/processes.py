"""Whether a process has ended, asked in a way that its end meanwhile does not disturb."""

from __future__ import annotations

import psutil


def ended(process: psutil.Process | int) -> bool:
    """True for a process that is gone or that only waits for its parent to read its exit status."""
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def command_line(process: psutil.Process) -> list[str]:
    """The words of its command line; [] for a process that has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
