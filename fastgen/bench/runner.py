"""The process of an arm, from inside: `python -m fastgen.bench.runner` reads one order per line on stdin and writes one
answer per line on stdout.

The first order says what to run and with which settings; each of the others is a round: {"rows": [...], "out": folder}.
The answer has the seconds from receiving the rows until the last image or text is safe on disk; nothing is timed across
processes. The model is loaded in the first round, so the time to the first image includes everything.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TextIO

import msgspec
from msgspec.structs import replace

from fastgen.bench.rounds import Play, Round
from fastgen.config.settings import Settings
from fastgen.errors import FastgenError, SettingsError

MOST_FAILED = 0.05
"""Share of a round's rows; if more fail, its rate means nothing."""
ENDING_S = 20.0
"""How long a round may continue when nobody waits for it any more."""


def fastgen_player(settings: Settings) -> Play:
    """Rounds as a user's runs, with one engine that stays open: journal, fsync and table are included."""
    import fastgen

    session = fastgen.Session()

    def play(rows: list[dict], out: Path) -> Round:
        started = time.monotonic()
        found, reason = Round(), ""
        for result in session.generate(replace(settings, run=replace(settings.run, out=str(out), fresh=True)), rows):
            if isinstance(result, fastgen.Failed):
                found.failed += 1
                reason = f"row {result.id}: {result.message}"
            else:
                found.made[result.id] = str(out / result.paths[0]) if result.paths else result.text
        found.seconds = time.monotonic() - started
        if found.failed > MOST_FAILED * len(rows):
            found.error = reason
        summary = json.loads((out / "run.json").read_text("utf-8"))
        found.stages, found.work = summary["stages_seconds"], summary.get("work", {})
        found.facts = next(iter(summary["engines"].values()), {})
        found.gpu_peak_gib = found.work.pop("gpu_peak_mib", 0) / 1024
        return found

    return play


def player(name: str, settings: Settings) -> Play:
    if name == "fastgen":
        return fastgen_player(settings)
    from fastgen.bench import baselines

    return getattr(baselines, name)(settings)


def main() -> None:
    answers = _own_stdout()
    orders: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    hello = json.loads(orders.get())
    play: Play | None = None
    while line := orders.get():
        order = json.loads(line)
        try:
            if play is None:
                settings = msgspec.convert(hello["settings"], Settings)
                play = player(hello["player"], settings)
            Path(order["out"]).mkdir(parents=True, exist_ok=True)
            answer = play(order["rows"], Path(order["out"]))
        except Exception as error:
            traceback.print_exc()
            text = " ".join(str(error).split())
            own = isinstance(error, FastgenError)
            answer = Round(
                error=text if own else f"{type(error).__name__}: {text}", by_user=isinstance(error, SettingsError)
            )
        answers.write(msgspec.json.encode(answer).decode() + "\n")
        answers.flush()


def _listen(orders: SimpleQueue) -> None:
    """Put orders into the queue, and "" at their end, after which this process ends, whatever it is doing."""
    for line in sys.stdin:
        orders.put(line)
    orders.put("")
    backstop = threading.Timer(ENDING_S, os._exit, (0,))
    backstop.daemon = True
    backstop.start()


def _own_stdout() -> TextIO:
    """The real stdout. From now on everything that libraries print goes to stderr."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        main()
