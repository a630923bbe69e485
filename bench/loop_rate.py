"""How many rows per second the run loop can commit when workers cost nothing, and what a finished folder costs to run
again.

    python -m bench.loop_rate [--rows 100000] [--workers 300] [--profile]

The workers are objects of this process that answer at once (no process, no image files), so what is measured is the
main process alone: reading rows, batches, journal and tables.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import resource
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path

from msgspec.structs import replace

from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.resolver import resolve
from fastgen.scheduler.run import Run
from fastgen.types import Batch, Done
from fastgen.workers import registry


class Instant:
    """A worker that makes nothing, at once."""

    beats = None
    reusable = False
    model = "nothing"

    def __init__(self, settings: Settings, device: Device, slots: int):
        self.name, self.device, self.slots = device.name, device, slots

    def start(self) -> Future:
        ready: Future = Future()
        ready.set_result({})
        return ready

    def submit(self, batch: Batch) -> Future:
        future: Future = Future()
        future.set_result([Done(r.id, "fake", "fake", (), r.params, 0.0, r.content) for r in batch.requests])
        return future

    def cancel_pending(self) -> None: ...
    def kill(self, reason: str) -> None: ...
    def stop(self, now: bool = False) -> None: ...
    def forget(self) -> None: ...


def one(path: Path, out: Path, workers: int) -> tuple[float, float]:
    """Seconds of a run, all in: by the clock, and of the processor."""
    started, used = time.monotonic(), time.process_time()
    settings = resolve("t2i", path, backend="fake", gpus="cpu", out=out, batch_size=8)
    devices = tuple(Device(f"cpu:{i}", "cpu", 1) for i in range(workers))
    settings = replace(settings, placement=replace(settings.placement, devices=devices, place="instant"))
    for _ in Run(settings).results():
        pass
    return time.monotonic() - started, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=300)
    parser.add_argument("--profile", action="store_true", help="print where the time of the first run goes")
    parser.add_argument("--out", type=Path, help="folder for loop_rate.json")
    args = parser.parse_args()
    registry.PLACES["instant"] = "bench.loop_rate:Instant"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "rows.jsonl")
        with path.open("w") as file:
            for i in range(args.rows):
                file.write(json.dumps({"prompt": f"prompt number {i} of many", "meta": {"i": i}}) + "\n")
        profile = cProfile.Profile()
        if args.profile:
            profile.enable()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        first, used = one(path, Path(scratch, "run"), args.workers)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        profile.disable()
        if args.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        again, again_used = one(path, Path(scratch, "run"), args.workers)
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "rows": args.rows,
        "workers": args.workers,
        "rows_per_second": round(args.rows / first),
        "bytes_per_row": round(grown * 1024 / args.rows),
        "rows_per_processor_second": round(args.rows / used),
        "rerun_seconds": round(again, 2),
        "rerun_processor_seconds": round(again_used, 2),
    }
    print(json.dumps(found))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "loop_rate.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
