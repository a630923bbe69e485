"""A run for asyncio: in a thread of its own, which is asked for one result after the other. Does not know what is
run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from fastgen.api.progress import shown
from fastgen.errors import FastgenError
from fastgen.scheduler.run import Run
from fastgen.types import Result


async def asynchronously(begin: Callable[[], Run], progress: bool) -> AsyncGenerator[Result, None]:
    """The results of a run.

    Args:
        begin: opens the run; called in the thread.
        progress: whether a bar is shown.
    """
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, thread_name_prefix="fastgen")
    opened = thread.submit(begin)
    results = thread.submit(lambda: shown(opened.result(), opened.result().results(), progress))

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
