"""The process of an arm, seen from outside: starts it, lets it run rounds, asks the system for its memory, ends it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from fastgen.bench.arms import Arm
from fastgen.bench.rounds import Round
from fastgen.config.hardware import child_environment
from fastgen.errors import FastgenError
from fastgen.output.artifacts import tail


class ArmFailed(FastgenError):
    """The process ended or made nothing; the text says why."""


class ArmRefused(ArmFailed):
    """It turns out not to work here: a kernel does not work, or a model does not fit."""


class ArmProcess:
    """Args: arm: what to run; folder: where its images and its log go."""

    def __init__(self, arm: Arm, folder: Path):
        self.arm = arm
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log.txt"
        self._started = time.monotonic()
        environment = child_environment(arm.settings.placement.devices[0])
        # The time to the first image includes quantizing and compiling, even if something ran here before.
        environment |= {"FASTGEN_KEEP_QUANTIZED": "0", "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fastgen.bench.runner"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                encoding="utf-8",
            )
        assert self._process.stdin and self._process.stdout
        self._orders, self._answers = self._process.stdin, self._process.stdout
        self._order({"player": arm.player, "settings": msgspec.to_builtins(arm.settings)})

    def play(self, rows: list[dict], name: str) -> Round:
        """Run one round. Raises ArmFailed."""
        self._order({"rows": rows, "out": str(self.folder / name)})
        line = self._answers.readline()
        if not line:
            code = self._process.wait()
            raise ArmFailed(f"its process ended with exit code {code}; the end of {self.log}:\n{tail(self.log)}")
        found = msgspec.json.decode(line, type=Round)
        if found.error:
            raise (ArmRefused if found.by_user else ArmFailed)(found.error)
        return found

    def first(self, row: dict) -> tuple[float, Round]:
        """Run one row. Returns the seconds since the process was started. Raises ArmFailed."""
        found = self.play([row], "first")
        return time.monotonic() - self._started, found

    def peak_gib(self) -> float:
        """The sum of the peak main memory of its processes; the peaks may be at different times."""
        return sum(map(_peak_kib, _family(self._process.pid))) / 2**20

    def end(self) -> None:
        with suppress(OSError):
            self._orders.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()

    def _order(self, order: dict) -> None:
        with suppress(OSError):  # if it is dead, reading the answer will show it
            self._orders.write(json.dumps(order) + "\n")
            self._orders.flush()


def _family(pid: int) -> list[int]:
    """A process and all its descendants, from Linux's process table."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name, in brackets, may contain anything.
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, ())
    return found


def _peak_kib(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0
