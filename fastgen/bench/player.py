"""An arm's process, from inside: `python -m fastgen.bench.player`, an order a line on stdin, an answer a line on stdout.

The first order says who plays and with which settings; each of the others is a round: {"rows": [...], "out": folder}. It is
answered with the seconds it took, from the rows being there to the last picture or text being safe on disk; nothing is timed
across processes. Whoever plays loads at its first round, so the time to a first picture has everything in it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import msgspec
from msgspec.structs import replace

from fastgen.settings import Settings


class Round(msgspec.Struct, omit_defaults=True):
    """What came of a round."""

    seconds: float = 0.0
    made: dict[str, str] = {}
    """By id the path of a row's picture, or its text. A row that failed is not there."""
    stages: dict[str, float] = {}
    """Seconds by stage, summed over batches that overlap."""
    work: dict[str, int] = {}
    """What the engine counted: blocks evaluated, graphs compiled."""
    facts: dict = {}
    """What it said of itself when it was open."""
    gpu_peak_gib: float = 0.0
    """The most that it has held of the GPU's memory so far; 0 on a CPU."""
    error: str = ""
    """Why nothing, or not all, came of it."""


Play = Callable[[list[dict], Path], Round]


def fastgen_player(settings: Settings) -> Play:
    """Rounds as a user's runs, by one engine that stays: journal, fsync and table are in."""
    import fastgen

    session = fastgen.Session()

    def play(rows: list[dict], out: Path) -> Round:
        started = time.monotonic()
        found = Round()
        for result in session.generate(replace(settings, out=str(out), fresh=True), rows):
            if isinstance(result, fastgen.Failed):
                found.error = found.error or f"row {result.id}: {result.message}"
            else:
                found.made[result.id] = str(out / result.paths[0]) if result.paths else result.text
        found.seconds = time.monotonic() - started
        summary = json.loads((out / "run.json").read_text("utf-8"))
        found.stages, found.work = summary["stages_seconds"], summary.get("work", {})
        found.facts = next(iter(summary["engines"].values()), {})
        found.gpu_peak_gib = found.work.pop("gpu_peak_mib", 0) / 1024
        return found

    return play


def player(name: str, settings: Settings) -> Play:
    if name == "fastgen":
        return fastgen_player(settings)
    from fastgen.bench import opponents

    return getattr(opponents, name)(settings)


def main() -> None:
    orders, answers = sys.stdin, _own_stdout()
    hello = json.loads(orders.readline())
    play: Play | None = None
    for line in orders:
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
            answer = Round(
                error=text if type(error).__module__ == "fastgen.errors" else f"{type(error).__name__}: {text}"
            )
        answers.write(msgspec.json.encode(answer).decode() + "\n")
        answers.flush()


def _own_stdout() -> TextIO:
    """What stdout was; from now on all that libraries print goes where errors go."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        main()
