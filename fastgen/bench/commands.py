"""Compares complete commands including loading: `fastgen` as a user types it, and any other program."""

from __future__ import annotations

import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fastgen.bench.work import Work
from fastgen.config.hardware import python_path
from fastgen.errors import EngineError


def time_both(
    compare: str, task: str, flags: dict, work: Work, folder: Path, count: int, rounds: int, say: Callable[[str], None]
) -> list[dict]:
    """Time both on the same rows, alternating.

    Args:
        compare: a shell command; {rows} in it becomes the path of a .jsonl of rows, {out} that of an empty folder.
        flags: of `fastgen`, as the bench was given them.

    Returns:
        For each {"command", "seconds", "images_per_second", "ratio"}: medians; ratios against fastgen in the same
        round.

    Raises:
        EngineError: one of them ended with an exit code other than 0.
    """
    given = [
        (f"--{name.replace('_', '-')}", str(value)) for name, value in flags.items() if value not in (None, "", "auto")
    ]
    words = " ".join(f"{flag} {shlex.quote(value)}" for flag, value in given)
    ours = f"fastgen {task} {{rows}} -o {{out}} --quiet {words}".strip()
    seconds: dict[str, list[float]] = {ours: [], compare: []}
    for turn in range(rounds):
        rows = folder / f"{turn}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        rows.write_text("".join(json.dumps(row) + "\n" for row in work.rows(turn, count)[0]), "utf-8")
        for command in list(seconds)[:: 1 if turn % 2 else -1]:
            out = folder / f"{turn}-{'fastgen' if command == ours else 'other'}"
            out.mkdir(exist_ok=True)
            typed = command.replace("{rows}", shlex.quote(str(rows))).replace("{out}", shlex.quote(str(out)))
            environment = dict(os.environ)
            if command == ours:
                typed = f"{shlex.quote(sys.executable)} -m {typed}"
                environment["PYTHONPATH"] = python_path()
            seconds[command].append(_time(typed, environment))
        say(
            f"round {turn + 1} of {rounds}, {count} rows: "
            + ", ".join(f"{times[-1]:.1f} s" for times in seconds.values())
        )
    return [
        {
            "command": command,
            "seconds": round(statistics.median(times), 2),
            "images_per_second": round(count / statistics.median(times), 3),
            "ratio": round(statistics.median(a / b for a, b in zip(seconds[ours], times, strict=True)), 3),
        }
        for command, times in seconds.items()
    ]


def _time(command: str, environment: dict[str, str]) -> float:
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        shell=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):  # the shell's children too
            os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        raise EngineError(f"{command}: exit code {process.returncode}: {said[-2000:]}")
    return time.monotonic() - started
