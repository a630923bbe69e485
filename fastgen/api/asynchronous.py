"""A run for asyncio: in a thread of its own, which is asked for one result after the other. Does not know what is
run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from fastgen.api.progress import Shown
from fastgen.errors import FastgenError
from fastgen.scheduler.run import Emit, Run
from fastgen.types import Result


async def asynchronously(begin: Callable[[Emit], Run], shown: Shown) -> AsyncGenerator[Result, None]:
    """The results of a run.

    Args:
        begin: opens the run, which tells its events to the argument; called in the thread.
        shown: shows how far the run is.
    """
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, thread_name_prefix="fastgen")
    opened = thread.submit(begin, shown.emit)
    results = thread.submit(lambda: shown.over(opened.result(), opened.result().results()))

    def interrupt() -> None:
        if opened.done() and not opened.exception() and opened.result().state == "running":
            opened.result().interrupt()

    def finish() -> None:
        """Take what is still made; it is safe in the journal then."""
        interrupt()  # also if it was opened only now
        with suppress(FastgenError):
            for _ in results.result():
                pass

    try:
        while (result := await loop.run_in_executor(thread, lambda: next(results.result(), None))) is not None:
            yield result
    except (asyncio.CancelledError, GeneratorExit):
        interrupt()
        await asyncio.shield(loop.run_in_executor(thread, finish))
        raise
    finally:
        thread.shutdown(wait=False)
