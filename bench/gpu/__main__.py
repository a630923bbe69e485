"""python -m bench.gpu --out FOLDER [--resume results.json] [--device cuda|cpu] [--budget-s 540] [--only PART ...]"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from bench.gpu import correct, report, speed, trace
from bench.gpu.state import ATTEMPTS, State

BUDGET_S = 540
PR_SET_PDEATHSIG = 1
SPARE_S = 20
"""Kept for writing results."""
LEAST_S = {"environment": 30, "parity": 60, "attention": 60, "quantize": 60}
"""A part that has less time than this does not begin; see `LEAST_FULL_S` too."""
LEAST_FULL_S = {"cuda": 120, "cpu": 30}
"""The same of a part that opens a model of full size."""
PARTS = (
    *("environment", "parity", "attention", "quantize", *speed.part_names("speed")[:6], "trace"),
    *speed.part_names("speed")[6:],
    *speed.part_names("batches"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--resume", type=Path, help="results.json of earlier calls on another machine")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    deadline = time.monotonic() + asked.budget_s
    if asked.part:
        _end_with_parent()
        return one(State(asked.out.resolve(), deadline), asked.part, asked.device)
    state = State(asked.out.resolve(), deadline)
    if asked.resume:
        state.resume(asked.resume)
    return everything(state, asked.only, asked.device, deadline)


def everything(state: State, parts: tuple[str, ...], device: str, deadline: float) -> int:
    """Every part that is not finished, as long as there is time. Returns 0 once all are."""
    for part in parts:
        left = deadline - time.monotonic() - SPARE_S
        if state.is_finished(part):
            continue
        if left < LEAST_S.get(part, LEAST_FULL_S[device]):
            continue
        print(f"{part} ({left:.0f} s left)", flush=True)
        command = [sys.executable, "-m", "bench.gpu", "--out", str(state.folder), "--device", device]
        command += ["--part", part, "--budget-s", str(left)]
        log = state.folder / "logs" / f"{part.replace(' ', '_')}.log"
        log.parent.mkdir(exist_ok=True)
        if not run(command, log, left):
            state.forgive(part)
        report.write(state, device)
    missing = [part for part in parts if not state.is_finished(part)]
    report.write(state, device)
    said = f"not finished: {', '.join(missing)}; the same command goes on" if missing else "all finished"
    print(f"{said}: {state.folder / 'results.md'}", flush=True)
    return 4 if missing else 0


def run(command: list[str], log: Path, seconds: float) -> bool:
    """A part in a process group of its own, which ends when its time is over. What it prints goes to its log and on.
    Returns whether the time was enough."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("a") as errors:
        process = subprocess.Popen(command, stderr=errors, env=environment, start_new_session=True)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            print("  out of time", flush=True)
            return False
        finally:  # compilers that it started have ended with it, or end now
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        print(f"  ended with {process.returncode}: {log}", flush=True)
    return True


def _end_with_parent() -> None:
    """Have the kernel end this process if the command is killed, so that no GPU stays taken."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


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
    if part.startswith(("speed", "batches")):
        speed.measure(state, device, part)
        return all(state.is_settled(part, f"{size} x{n}") for size, n in speed.cells_of(device, part))
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
