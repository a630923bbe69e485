"""The progress of a call of a serving, as a bar on stderr that looks like tqdm's.

On a terminal the bar is on the last line and is drawn at most ten times per second. Elsewhere (a file, a pipe) a line
is written from time to time, and one at the end. Does not know what is counted.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable

from fastgen.dataflow import logger

ON_TERMINAL_S, ELSEWHERE_S = 0.1, 15.0
"""Seconds between two lines."""
WIDTH = 10
"""Width of the bar if the width of the terminal is unknown, as with tqdm."""
EIGHTHS = " ▏▎▍▌▋▊▉"


class Progress:
    """Show a bar inside the block.

    Args:
        what: what is being done; shown before the bar.
        total: number of inputs.
        unit: what they are called.
        visible: False shows no bar.
    """

    def __init__(
        self,
        what: str,
        total: int,
        unit: str = "it",
        visible: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.what, self.total, self.unit, self.visible, self._clock = what, total, unit, visible and total > 0, clock
        self.done = 0
        self._began = self._drawn = clock()
        self._on_terminal = False
        self._every_s = ELSEWHERE_S
        self._said = -1
        """What was done when a line was written last."""

    def __enter__(self) -> Progress:
        self._on_terminal = self.visible and sys.stderr.isatty()
        if self._on_terminal:
            self._every_s = ON_TERMINAL_S
            logger.shown.append(self)
            self.show()
        return self

    def step(self) -> None:
        """Count one more."""
        self.done += 1
        if self.visible and (now := self._clock()) - self._drawn >= self._every_s:
            self._drawn, self._said = now, self.done
            self._write(self.line() + ("" if self._on_terminal else "\n"))

    def __exit__(self, *error: object) -> None:
        if not self.visible:
            return
        if self._on_terminal:
            logger.shown.remove(self)
        if self._on_terminal or self._said != self.done:
            self._write(self.line() + "\n")

    def hide(self) -> None:
        """Clear the line for something else."""
        self._write("")

    def show(self) -> None:
        self._write(self.line())

    def line(self) -> str:
        """Draw the bar."""
        took = max(0.0, self._clock() - self._began)
        rate = self.done / took if took else 0.0
        left = _clock_time((self.total - self.done) / rate) if rate else "?"
        speed = f"{rate:.2f}{self.unit}/s" if rate >= 1 or not rate else f"{1 / rate:.2f}s/{self.unit}"
        before = f"{self.what}: {100 * self.done // self.total:3d}%|"
        after = f"| {self.done}/{self.total} [{_clock_time(took)}<{left}, {speed if rate else '?' + self.unit + '/s'}]"
        room = shutil.get_terminal_size((0, 0)).columns - 1 - len(before) - len(after) if self._on_terminal else WIDTH
        return before + _bar(self.done / self.total, max(1, room)) + after

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(f"\r\x1b[K{text}" if self._on_terminal else text)
            sys.stderr.flush()
        except (OSError, ValueError):  # the reader is gone
            self.visible = False


def _bar(share: float, width: int) -> str:
    full, part = divmod(round(share * width * 8), 8)
    return ("█" * full + (EIGHTHS[part] if part else "")).ljust(width)


def _clock_time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"
