"""How near workers that are real processes come to their ideal, and beside it what the machine alone comes to.

    python -m bench.real_workers [--processes 1 2 4 8 16] [--ray 16 64] [--seconds 1] [--rounds 3] [--out FOLDER]

The fake backend takes a known time for a row, and nothing is prepared while it sleeps: each place of a worker waits for
the main process between two rows. What is counted is the part of the time of all places in which rows slept, so
that nothing is rounded to whole rows. The control are bare processes without fastgen: as many, with as many threads
that sleep as long and say one byte to their parent. It tells what waking up costs on this machine under its load.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastgen.backends.registry import slots
from fastgen.resolver import resolve
from fastgen.scheduler.run import Run

ROWS_EACH = 20
LEAST_ROWS = 5
"""Of each place, in the time that counts."""
NODE_ADDRESS = "127.0.0.2"
"""Ray makes 127.0.0.1 an address that other machines can reach; this one stays on the loopback."""
BARE = """
import os, sys, threading, time
def place():
    while True:
        time.sleep(float(sys.argv[1]))
        os.write(1, b".")
for _ in range(int(sys.argv[2])):
    threading.Thread(target=place, daemon=True).start()
sys.stdin.read()
os._exit(0)
"""


def used(times: Sequence[float], seconds: float, places: int, begin: float, end: float) -> float:
    """The part of the time of all places in which rows were at work.

    Args:
        times: when the rows were done, in seconds.
        seconds: of a row.
        begin, end: what counts, on the same clock. All places have rows all the time.
    """
    return sum(max(0.0, min(done, end) - max(done - seconds, begin)) for done in times) / ((end - begin) * places)


def measure(scratch: Path, workers: int, seconds: float, rows_each: int = ROWS_EACH, **flags: Any) -> dict[str, Any]:
    """One run, from when all workers have been at work for a row, until the first place may find no row left.

    Args:
        flags: of `resolve`, such as the address of a Ray cluster.
    Raises:
        AssertionError: too little time counts, because the workers took too long to start.
    """
    path, out = scratch / "rows.jsonl", scratch / "run"
    path.write_text(json.dumps({"prompt": "a"}) + "\n")
    how = {"backend": "fake", "gpus": f"cpu:{workers}", "batch_size": 1, "fresh": True, **flags}
    settings = resolve("t2i", path, out=out, **how)
    places = sum(slots(settings, device) for device in settings.placement.devices)
    rows = places * rows_each
    path.write_text("".join(json.dumps({"prompt": f"{i} slow:{seconds}"}) + "\n" for i in range(rows)))
    ready: list[float] = []
    times: list[float] = []

    def emit(event: str, **facts: Any) -> None:
        if event == "lane_ready":
            ready.append(time.monotonic())

    computed_s = time.process_time()
    for _ in Run(settings, emit).results():
        times.append(time.monotonic())
    computed_s = time.process_time() - computed_s
    begin, end = max(ready) + seconds, times[-places]
    assert len(ready) == workers and end - begin >= LEAST_ROWS * seconds, f"only {end - begin:.0f} s count"
    return {
        "places": places,
        "counted_s": round(end - begin, 1),
        "efficiency": round(used(times, seconds, places, begin, end), 4),
        "main_process_ms_per_row": round(computed_s / rows * 1000, 2),
    }


def control(workers: int, each: int, seconds: float, for_s: float) -> float:
    """The same part of the time, with bare processes.

    Args:
        each: threads of a process.
        for_s: how long, once all have begun.
    """
    times: list[float] = []
    begun: list[float] = []
    all_begun = threading.Event()
    command = [sys.executable, "-S", "-c", BARE, str(seconds), str(each)]
    bare = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(workers)]

    def listen(process: subprocess.Popen) -> None:
        assert process.stdout is not None
        for number in range(sys.maxsize):
            if not os.read(process.stdout.fileno(), 1):
                return
            times.append(time.monotonic())
            if not number:
                begun.append(times[-1])
                if len(begun) == workers:
                    all_begun.set()

    listeners = [threading.Thread(target=listen, args=(process,)) for process in bare]
    for listener in listeners:
        listener.start()
    all_begun.wait()
    time.sleep(for_s + 2 * seconds)
    for process in bare:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    for listener in listeners:
        listener.join()
    begin = max(begun)
    return round(used(times, seconds, workers * each, begin, begin + for_s), 4)


def rounds(workers: int, seconds: float, count: int, **flags: Any) -> dict[str, Any]:
    """Runs and controls in turn. Returns all of them and their medians."""
    runs, controls, loads = [], [], []
    for _ in range(count):
        loads.append(round(os.getloadavg()[0], 1))
        with tempfile.TemporaryDirectory() as name:
            runs.append(measure(Path(name), workers, seconds, **flags))
        controls.append(control(workers, runs[-1]["places"] // workers, seconds, min(20 * seconds, 20.0)))
    found = [run["efficiency"] for run in runs]
    return {
        "workers": workers,
        "places": runs[0]["places"],
        "seconds_per_row": seconds,
        "efficiency": statistics.median(found),
        "from_to": [min(found), max(found)],
        "control": statistics.median(controls),
        "controls": controls,
        "main_process_ms_per_row": statistics.median(run["main_process_ms_per_row"] for run in runs),
        "load_before": loads,
    }


def on_ray(workers: int, seconds: float, count: int) -> dict[str, Any]:
    """The same with workers that are actors of a Ray cluster of this machine."""
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": workers, "object_store_memory": 80_000_000, "node_ip_address": NODE_ADDRESS}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        flags = {"engine": "ray", "ray_address": cluster.address, "rows_each": 2 * ROWS_EACH}
        return rounds(workers, seconds, count, **flags)
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--ray", type=int, nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=1.0, help="of a row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for real_workers.json")
    args = parser.parse_args()
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "processes": [],
        "ray": [],
    }
    for kind, run, counts in (("processes", rounds, args.processes), ("ray", on_ray, args.ray)):
        for workers in counts:
            found[kind].append(run(workers, args.seconds, args.rounds))
            print(json.dumps({"kind": kind, **found[kind][-1]}), flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "real_workers.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
