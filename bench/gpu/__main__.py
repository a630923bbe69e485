"""python -m bench.gpu --out FOLDER [--device cuda|cpu] [--budget-s 540] [--only PART ...]"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.gpu import correct, report, speed, trace
from bench.gpu.state import ATTEMPTS, State

BUDGET_S = 540
SPARE_S = 20
"""Kept for writing results."""
LEAST_S = 30
"""A part that has less time than this does not begin."""
PARTS = ("environment", "parity", "attention", "quantize", *speed.part_names()[:4], "trace", *speed.part_names()[4:])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    deadline = time.monotonic() + asked.budget_s
    if asked.part:
        return one(State(asked.out.resolve(), deadline), asked.part, asked.device)
    return everything(State(asked.out.resolve(), deadline), asked.only, asked.device, deadline)


def everything(state: State, parts: tuple[str, ...], device: str, deadline: float) -> int:
    """Every part that is not finished, as long as there is time. Returns 0 once all are."""
    for part in parts:
        left = deadline - time.monotonic() - SPARE_S
        if state.is_finished(part):
            continue
        if left < LEAST_S:
            break
        print(f"{part} ({left:.0f} s left)", flush=True)
        command = [sys.executable, "-m", "bench.gpu", "--out", str(state.folder), "--device", device]
        command += ["--part", part, "--budget-s", str(left)]
        log = state.folder / "logs" / f"{part.replace(' ', '_')}.log"
        log.parent.mkdir(exist_ok=True)
        run(command, log, left)
        report.write(state, device)
    missing = [part for part in parts if not state.is_finished(part)]
    report.write(state, device)
    said = f"not finished: {', '.join(missing)}; the same command goes on" if missing else "all finished"
    print(f"{said}: {state.folder / 'results.md'}", flush=True)
    return 4 if missing else 0


def run(command: list[str], log: Path, seconds: float) -> None:
    """A part in a process group of its own, which ends when its time is over. What it prints goes to its log and on."""
    with log.open("a") as errors:
        process = subprocess.Popen(command, stderr=errors, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print("  out of time", flush=True)
    if process.returncode:
        print(f"  ended with {process.returncode}: {log}", flush=True)


def one(state: State, part: str, device: str) -> int:
    """All cells of a part for which there is time. What ends the whole part is kept like a cell that failed."""
    try:
        complete = _all_cells(state, part, device)
    except Exception as error:
        reason = error

        def fail() -> dict:
            raise reason

        complete = (state.cell(part, "opening", fail) or {}).get("attempts", 0) >= ATTEMPTS
    if complete:
        state.finish(part)
    return 0


def _all_cells(state: State, part: str, device: str) -> bool:
    """Returns whether none is left."""
    if part.startswith("speed"):
        speed.measure(state, device, part)
        names = [f"{size} x{n}" for size, n in speed.CELLS[device]]
        return all(state.read(part, name) for name in names)
    {
        "environment": correct.environment,
        "parity": correct.parity,
        "attention": correct.attention,
        "quantize": correct.quantize,
        "trace": trace.trace,
    }[part](state, device)
    return time.monotonic() < state.deadline


if __name__ == "__main__":
    sys.exit(main())
