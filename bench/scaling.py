"""How near many workers come to their ideal, with a backend whose time per row is known.

    python -m bench.scaling [--simulated 1 4 16 64 256] [--out FOLDER]

The run loop, the journal and the tables are the real ones; workers are objects that answer after their time on a
simulated clock, and the time that the main process computes passes on that clock too. So what is measured is whether
the loop keeps all workers busy, and whether it keeps up. `bench.real_workers` has workers that are processes.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import platform
import tempfile
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from queue import Empty
from typing import Any, ClassVar

from msgspec.structs import replace

from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.resolver import resolve
from fastgen.scheduler.run import Run
from fastgen.types import Batch, Done
from fastgen.workers import registry

SLOTS = 2
PLACE = "simulated"


class Clock:
    """The inbox of a run whose workers are simulated. Asked for a message, it moves on to the next event.

    Args:
        charge: whether the processor time of this process passes on the clock too.
    """

    def __init__(self, charge: bool):
        self.now_s = self.computed_s = 0.0
        self._charge = charge
        self._since = time.process_time()
        self._events: list[tuple[float, int, Future, list]] = []
        self._ready: deque = deque()
        self._count = 0

    def tick(self) -> float:
        """Let the time pass that this process has computed. Returns the time now."""
        now = time.process_time()
        if self._charge:
            self.now_s += now - self._since
            self.computed_s += now - self._since
        self._since = now
        return self.now_s

    def at(self, when_s: float, future: Future, results: list) -> None:
        """Set the future's result at that time."""
        self._count += 1
        heapq.heappush(self._events, (when_s, self._count, future, results))

    def put(self, message: Any) -> None:
        self._ready.append(message)

    def empty(self) -> bool:
        return not self._ready

    def get_nowait(self) -> Any:
        return self.get(wait=False)

    def get(self, timeout: float = 0.0, wait: bool = True) -> Any:
        self.tick()
        while not self._ready:
            assert self._events or not wait, "the run waits, but no worker has anything to do"
            if not self._events or not (wait or self._events[0][0] <= self.now_s):
                raise Empty
            when, _, future, results = heapq.heappop(self._events)
            self.now_s = max(self.now_s, when)
            future.set_result(results)  # its callback calls `put`
        return self._ready.popleft()


class Simulated:
    """A worker that takes `seconds` a row, one batch after the other."""

    beats = None
    reusable = False
    model = "nothing"
    clock = Clock(False)
    seconds: float = 0.1
    slower: ClassVar[dict[str, float]] = {}
    """Name of a worker -> how many times as long it takes."""
    switches: ClassVar[dict[str, int]] = {}
    """Name of a worker -> how often a batch had another size than the one before."""

    def __init__(self, settings: Settings, device: Device, slots: int):
        self.name, self.device, self.slots = device.name, device, SLOTS
        self._free_at_s = 0.0
        self._bucket: object = None

    def start(self) -> Future:
        ready: Future = Future()
        ready.set_result({})
        return ready

    def submit(self, batch: Batch) -> Future:
        if self._bucket not in (None, batch.bucket):
            self.switches[self.name] = self.switches.get(self.name, 0) + 1
        self._bucket = batch.bucket
        each = self.seconds * self.slower.get(self.name, 1.0)
        self._free_at_s = max(self.clock.tick(), self._free_at_s) + each * len(batch.requests)
        future: Future = Future()
        results = [Done(r.id, "fake", "fake", (), r.params, each, r.content) for r in batch.requests]
        self.clock.at(self._free_at_s, future, results)
        return future

    def cancel_pending(self) -> None: ...
    def kill(self, reason: str) -> None: ...
    def stop(self, now: bool = False) -> None: ...
    def forget(self) -> None: ...


def simulate(
    scratch: Path, workers: int, rows: int, slow: float = 1.0, sizes: int = 1, charge: bool = True, batch: int = 4
) -> dict:
    """A run on simulated workers.

    Args:
        slow: the first worker takes so many times as long.
        sizes: of the images, mixed at random.
        batch: rows of a batch.
    Returns:
        efficiency: ideal time / time, where ideal is as if the work could be divided at will.
        switches, least: how often workers had another size than before, and the least if all are to end together.
    """
    registry.PLACES[PLACE] = "bench.scaling:Simulated"
    path, out = scratch / "rows.jsonl", scratch / f"run-{workers}-{slow:g}-{sizes}"
    with path.open("w") as file:
        for i in range(rows):
            size = f"{64 + 16 * (i * 7919 % 9973 % sizes)}x64"
            file.write(json.dumps({"id": f"row-{i}", "prompt": f"prompt number {i}", "size": size}) + "\n")
    settings = resolve("t2i", path, backend="fake", gpus="cpu", out=out, batch_size=batch)
    devices = tuple(Device(f"cpu:{i}", "cpu", 1) for i in range(workers))
    settings = replace(settings, placement=replace(settings.placement, devices=devices, place=PLACE))
    Simulated.slower, Simulated.switches = {"cpu:0": slow}, {}
    Simulated.clock = clock = Clock(charge)
    run: Any = Run(settings)
    run._inbox = run._pool.inbox = clock
    run._pool.clock = clock.tick
    done = last_s = 0.0
    for _ in run.results():
        done, last_s = done + 1, clock.now_s
    assert done == rows, f"{done} of {rows} rows"
    ideal_s = rows * Simulated.seconds / (workers - 1 + 1 / slow)
    return {
        "workers": workers,
        "rows": rows,
        "seconds": round(last_s, 2),
        "efficiency": round(ideal_s / last_s, 4),
        **({"main_process_busy": round(clock.computed_s / last_s, 3)} if charge else {}),
        **(
            {"switches": sum(Simulated.switches.values()), "least": sizes - math.gcd(sizes, workers)}
            if sizes > 1
            else {}
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=int, nargs="*", default=[1, 2, 4, 8, 16, 64, 256])
    parser.add_argument("--out", type=Path, help="folder for scaling.json")
    args = parser.parse_args()
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "seconds_per_row": Simulated.seconds,
        "simulated": [],
    }
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for count in args.simulated:
            found["simulated"].append(simulate(scratch, count, count * 200))
            print(json.dumps(found["simulated"][-1]), flush=True)
        found["one_of_8_is_5_times_slower"] = simulate(scratch, 8, 4000, slow=5.0)
        found["8_sizes_on_4_workers"] = simulate(scratch, 4, 4000, sizes=8)
        found["24_sizes_on_8_workers"] = simulate(scratch, 8, 4000, sizes=24)
        print(json.dumps({k: v for k, v in found.items() if k[0].isdigit() or k.startswith("one")}), flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "scaling.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    from bench import scaling  # the worker is made by its name, so there must be one module only

    scaling.main()
