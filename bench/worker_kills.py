"""Many workers, and one of them killed every moment: is every row done once, and only the rows at fault fail?

    python -m bench.worker_kills [--workers 64] [--rows 10000] [--every 0.1] [--seconds 60] [--seed 0] [--out FOLDER]

Processes of the fake backend, which write a small image per row. Three rows end their worker whenever they run. The
command is one run in this process; the killer is a thread of it that sends SIGKILL to a worker at random.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastgen.resolver import resolve
from fastgen.scheduler.run import Run
from fastgen.types import Done

POISON = 3


class Killer(threading.Thread):
    """Kills one of the workers that are ready, every so many seconds, for so many seconds."""

    def __init__(self, every_s: float, seconds: float, seed: int):
        super().__init__(daemon=True)
        self.kills = 0
        self.ended = threading.Event()
        self.pids: dict[str, int] = {}
        """Of the workers that are ready."""
        self._every_s, self._seconds, self._random = every_s, seconds, random.Random(seed)

    def run(self) -> None:
        due = time.monotonic()
        until = due + self._seconds
        while due < until and not self.ended.wait(max(0.0, due - time.monotonic())):
            due += self._every_s
            with suppress(ProcessLookupError, IndexError, KeyError):
                lane = self._random.choice(list(self.pids))
                os.kill(self.pids.pop(lane), signal.SIGKILL)
                self.kills += 1


def storm(
    folder: Path, workers: int, rows: int, every_s: float, seconds: float, seed: int = 0, slow_s: float = 0.3
) -> dict[str, Any]:
    """One run. The killer begins when half of the workers are ready. Returns the figures.

    Args:
        slow_s: the longest time of a row.
    """
    rng, path = random.Random(seed), folder / "rows.jsonl"
    poison = {f"r{i}" for i in rng.sample(range(rows), POISON)}
    with path.open("w") as file:
        for i in range(rows):
            prompt = "crash" if f"r{i}" in poison else f"picture {i} slow:{rng.uniform(0.01, slow_s):.3f}"
            file.write(json.dumps({"id": f"r{i}", "prompt": prompt}) + "\n")
    settings = resolve("t2i", path, backend="fake", gpus=f"cpu:{workers}", out=folder / "out", batch_size=4)
    events: Counter[str] = Counter()
    killer = Killer(every_s, seconds, seed)
    ready: set[str] = set()

    def emit(event: str, **facts: Any) -> None:
        events[event] += 1
        if event == "lane_ready":
            ready.add(facts["lane"])
            killer.pids[facts["lane"]] = facts["pid"]
            if len(ready) * 2 >= workers and not killer.is_alive() and not killer.kills:
                killer.start()

    started = time.monotonic()
    results: Counter[str] = Counter()
    failed: dict[str, str] = {}
    for result in Run(settings, emit).results():
        results[result.id] += 1
        if not isinstance(result, Done):
            failed[result.id] = result.kind
    killer.ended.set()
    table = [json.loads(line) for line in (folder / "out/results.jsonl").open()]
    made = Counter(json.loads(line)["rec"]["id"] for line in (folder / "out/journal.jsonl").open())
    return {
        "workers": workers,
        "rows": rows,
        "kills": killer.kills,
        "deaths": events["lane_died"],
        "seconds": round(time.monotonic() - started, 1),
        "lost": rows - len(made),
        "doubled": sum(count - 1 for count in made.values()) + sum(count - 1 for count in results.values()),
        "rows_in_table": len(table),
        "poison": sorted(id for id, kind in failed.items() if kind == "poison" and id in poison),
        "failed_without_fault": {id: kind for id, kind in failed.items() if id not in poison},
        "poison_not_found": sorted(poison - set(failed)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--every", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--slow", type=float, default=2.0, help="seconds that a row takes at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for worker_kills.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = storm(Path(name), args.workers, args.rows, args.every, args.seconds, args.seed, args.slow)
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "every_seconds": args.every,
        "seed": args.seed,
        **found,
    }
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "worker_kills.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
