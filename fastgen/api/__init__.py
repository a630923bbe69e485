"""The interface for Python callers and for the command line: rows in, results out.

import fastgen
settings = fastgen.resolve("t2i", "prompts.jsonl", out="run", gpus="0,1")
for result in fastgen.generate(settings):
    print(result.row, result.error or result.image_paths)

For many small runs, a `Session` keeps the engines open in between. `asynchronous` has the variants for asyncio.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Iterable, Iterator

from fastgen.api.asynchronous import asynchronously
from fastgen.api.plan import plan_of
from fastgen.api.progress import Shown
from fastgen.config.settings import Settings
from fastgen.errors import SettingsError
from fastgen.scheduler.ctrl_c import results_of
from fastgen.scheduler.run import Emit, Run
from fastgen.types import Result
from fastgen.workers.idle_pool import IdlePool


def generate(
    settings: Settings, rows: Iterable[dict] | None = None, emit: Emit | None = None, progress: bool = False
) -> Iterator[Result]:
    """Run a task over its rows. Yields one result for every row, each as soon as it is safe on disk.

    A result is a `Done` or a `Failed`. Both have `row` (the row as it was given), `error` (None, or why there is no
    result), `images` (read when they are asked for) and `earlier` (an earlier run made it, so nothing was done for it
    now). They come in the order in which they are ready; the table in the run folder has the order of the rows.

    >>> import fastgen
    >>> settings = fastgen.resolve("t2i", out="run", model="tiny", gpus="cpu", size="128x128", steps=4)
    >>> rows = [{"prompt": "a red circle on a blue background", "name": "first"}]
    >>> for result in fastgen.generate(settings, rows):
    ...     print(result.row["name"], result.error, result.images[0].size)
    first None (128, 128)

    Args:
        settings: from `resolve`.
        rows: rows as dicts, if `settings` has no input file. They are written to rows.jsonl in the run folder.
        emit: called as emit(event, **facts) for events other than results.
        progress: whether to show how far the run is, as the command line does: a bar, rate and time left, and a line
            per worker, on a terminal (stderr) or in a notebook; elsewhere a line now and then.

    Raises:
        SettingsError: something cannot be honoured; nothing was done.
        EngineError, DiskError: the run cannot continue; what is done is safe, and the same call continues from there.
        KeyboardInterrupt: after the first Ctrl-C, once the batches in progress are done and their results are safe, 20
            s later at most. A second Ctrl-C raises it at once.
    """
    shown = Shown(progress, emit)
    run = Run(settings, shown.emit, rows, tells_all=True)
    yield from shown.over(run, results_of(run, quiet=emit is not None))


class Session:
    """Runs one after the other, with engines (or a vLLM server) that stay open from one to the next.

    >>> import fastgen
    >>> with fastgen.Session() as session:
    ...     for part in ("run", "run"):
    ...         settings = fastgen.resolve("t2i", out=part, model="tiny", gpus="cpu", size="128x128", steps=4)
    ...         rows = [{"prompt": "a red circle on a blue background", "name": "first"}]
    ...         for result in session.generate(settings, rows):
    ...             print(result.row["name"], result.earlier)
    first True
    first True

    A run reuses an engine if its model, devices and everything else that an engine is opened with are the same; folder,
    sizes, steps, seeds, prompts and so on may differ. A run that needs another engine on a device stops the idle one
    there, whichever session it belongs to, and says so. Engines also end with `close`, with the session, and with this
    process, for whatever reason it ends. A run that was interrupted or could not continue leaves no engine open.

    Args:
        place: where engines run, a name in `fastgen.workers.registry.PLACES`; "": where the settings say.
    """

    def __init__(self, place: str = "") -> None:
        self._place = place
        self._idle_pool = IdlePool()
        self._end = weakref.finalize(self, self._idle_pool.close)

    def generate(
        self,
        settings: Settings,
        rows: Iterable[dict] | None = None,
        emit: Emit | None = None,
        progress: bool = False,
    ) -> Iterator[Result]:
        """Like `fastgen.generate`. Raises SettingsError after `close`."""
        shown = Shown(progress, emit)
        run = self._run(settings, rows, shown.emit)
        yield from shown.over(run, results_of(run, quiet=emit is not None))

    def generate_async(
        self,
        settings: Settings,
        rows: Iterable[dict] | None = None,
        emit: Emit | None = None,
        progress: bool = False,
    ) -> AsyncGenerator[Result, None]:
        """Like `fastgen.generate_async`. Raises SettingsError after `close`."""
        return asynchronously(lambda told: self._run(settings, rows, told), Shown(progress, emit))

    def _run(self, settings: Settings, rows: Iterable[dict] | None, emit: Emit) -> Run:
        if not self._end.alive:
            raise SettingsError("this session is closed; open another one")
        return Run(settings, emit, rows, self._idle_pool, self._place, tells_all=True)

    def close(self) -> None:
        """End the idle engines; an engine at work ends with its run."""
        self._end()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def generate_async(
    settings: Settings, rows: Iterable[dict] | None = None, emit: Emit | None = None, progress: bool = False
) -> AsyncGenerator[Result, None]:
    """`generate` for asyncio: the run is in a thread of its own, and the event loop goes on meanwhile.

    If the task is cancelled, or its loop is left and the generator closed, the batches in progress are finished first,
    for 20 s at most, as after Ctrl-C.

    >>> import asyncio, fastgen
    >>> settings = fastgen.resolve("t2i", out="run", model="tiny", gpus="cpu", size="128x128", steps=4)
    >>> async def main():
    ...     rows = [{"prompt": "a red circle on a blue background", "name": "first"}]
    ...     async for result in fastgen.generate_async(settings, rows):
    ...         print(result.row["name"], result.error)
    >>> asyncio.run(main())
    first None

    Args and Raises: as of `generate`.
    """
    return asynchronously(lambda told: Run(settings, told, rows, tells_all=True), Shown(progress, emit))


def explain(settings: Settings) -> dict:
    """What a run would do. Loads no model and does not change the run folder.

    >>> import fastgen, pathlib
    >>> _ = pathlib.Path("rows.jsonl").write_text('{"prompt": "a fox"}\\n{"prompt": "a boat", "n": 2}\\n{}\\n')
    >>> plan = fastgen.explain(fastgen.resolve("t2i", "rows.jsonl", out="planned", model="tiny", gpus="cpu"))
    >>> plan["rows"], len(plan["bad"]), [bucket["samples"] for bucket in plan["buckets"]]
    (3, 1, [3])

    Returns:
        {"rows", "kept", "done", "failed": counts (the last two of earlier runs), "bad": [Failed, ...],
        "buckets": [{"bucket", "requests", "samples", "batch_size", "batches"}, ...],
        "warnings": why a run would be refused or rows of earlier runs made again,
        "unread": which fields of the rows are not read,
        "usd": the most that rows still to be run may cost at the first backend; None if its prices are not known, or if
        nothing is paid,
        "seconds": how long they take, without loading; None if that is not known,
        "seconds_by": at whose rate: "run", the last one in this folder, or "profile", as measured for it; "" if nobody
        knows}
    """
    return plan_of(settings)
