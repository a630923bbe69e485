"""Whole commands beside each other, loading and all: `fastgen` as a user types it, and any other program."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fastgen.bench.work import Work
from fastgen.errors import EngineError
from fastgen.settings import Settings


def time_both(
    compare: str, settings: Settings, work: Work, folder: Path, count: int, rounds: int, say: Callable[[str], None]
) -> list[dict]:
    """Time both on the same rows in turns.

    Args:
        compare: a shell command; {rows} in it becomes the path of a .jsonl of rows, {out} that of an empty folder.

    Returns:
        For each {"command", "seconds", "images_per_second", "ratio"}: medians; ratios against fastgen in the same turn.

    Raises:
        EngineError: one of them ended with another exit code than 0.
    """
    task = settings.task
    ours = f"{shlex.quote(sys.executable)} -m fastgen {task} {{rows}} -o {{out}} --quiet --model {shlex.quote(settings.model.path)}"
    ours += (
        f" --gpus {'0' if settings.devices[0].gpu else 'cpu'} --dtype {settings.dtype} --steps {settings.steps}"
        if task != "caption"
        else ""
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    seconds: dict[str, list[float]] = {ours: [], compare: []}
    for turn in range(rounds):
        rows = folder / f"{turn}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        rows.write_text("".join(json.dumps(row) + "\n" for row in work.rows(turn, count)[0]), "utf-8")
        for number, command in enumerate(seconds):
            out = folder / f"{turn}-{number}"
            out.mkdir(exist_ok=True)
            typed = command.replace("{rows}", shlex.quote(str(rows))).replace("{out}", shlex.quote(str(out)))
            started = time.monotonic()
            done = subprocess.run(
                typed, shell=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            if done.returncode:
                raise EngineError(f"{typed}: exit code {done.returncode}: {done.stderr[-2000:]}")
            seconds[command].append(time.monotonic() - started)
        say(
            f"round {turn + 1} of {rounds}, {count} rows: "
            + ", ".join(f"{times[-1]:.1f} s" for times in seconds.values())
        )
    return [
        {
            "command": command if command == compare else f"fastgen {task}",
            "seconds": round(statistics.median(times), 2),
            "images_per_second": round(count / statistics.median(times), 3),
            "ratio": round(statistics.median(a / b for a, b in zip(seconds[ours], times, strict=True)), 3),
        }
        for command, times in seconds.items()
    ]
