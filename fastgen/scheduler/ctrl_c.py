"""How a run ends that is used from Python, when Ctrl-C is pressed or its caller stops taking results. What services are
being asked at that moment is paid for, so it is awaited for the same short time as on the command line, and kept.

Leaves signals alone outside the main thread, and if the program has a handler of its own. Does not know workers.
"""

from __future__ import annotations

import atexit
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

from fastgen.errors import FastgenError
from fastgen.scheduler.run import GRACE_S, Run
from fastgen.types import Result

_suspended: dict[Run, Generator[Result, None, None]] = {}
"""Runs whose caller has not taken all results yet."""


def results_of(run: Run, quiet: bool) -> Iterator[Result]:
    """`run.results()`, where the first Ctrl-C stops the run in good order, as on the command line; then
    KeyboardInterrupt is raised. The second one raises it at once.

    Args:
        quiet: whether the run's warnings are shown by somebody else.
    """
    results, ctrl_c = run.results(), CtrlC(run, quiet)
    _suspended[run] = results
    try:
        while True:
            with ctrl_c:
                result = next(results, None)
            if result is None:
                break
            yield result
    except BaseException:  # also if the caller leaves its loop, perhaps because Ctrl-C was pressed there
        if not ctrl_c.pressed and not sys.is_finalizing():
            with ctrl_c:
                _finish(run, results, ctrl_c.tell)
        raise
    finally:
        del _suspended[run]
        results.close()
    if ctrl_c.pressed:
        raise KeyboardInterrupt


class CtrlC:
    """While entered, Ctrl-C is for this run. Args: quiet: print nothing."""

    def __init__(self, run: Run, quiet: bool):
        self.pressed = False
        self._run = run
        self._quiet = quiet
        self._ours = False

    def __enter__(self) -> None:
        self._ours = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._ours:
            signal.signal(signal.SIGINT, self._press)

    def __exit__(self, *error: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _press(self, signum: int, frame: object) -> None:
        if self.pressed or self._run.state != "running":
            self.pressed = True
            raise KeyboardInterrupt
        self.pressed = True
        self._run.interrupt()
        self.tell()

    def tell(self) -> None:
        """What happens now, unless the run's own warning is shown."""
        if not self._quiet:
            said = f"finishing what is in progress for {GRACE_S:.0f} s at most; press Ctrl-C again to stop at once"
            print(f"fastgen: {said}", file=sys.stderr, flush=True)


def _finish(run: Run, results: Iterator[Result], tell: Callable[[], None] = lambda: None) -> None:
    """Nobody takes results any more: wait for those that are being paid for. They are in the journal then."""
    if run.state == "running" and run.asks_services:
        run.interrupt()
        tell()
        with suppress(FastgenError):
            deque(results, maxlen=0)


@atexit.register
def _finish_all() -> None:
    for run, results in list(_suspended.items()):
        _finish(run, results)
