"""How often workers change the size of their images, and the least with which they can all end together.

    python -m bench.size_changes [--rows 4000 40000] [--out FOLDER]

The window alone, on a simulated clock: it is kept full from rows in random order, each worker has two batches, and a
row takes one second whatever its size.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastgen.scheduler.batching import WINDOW, Window
from fastgen.types import Batch, Bucket, ImageParams, Request

SIZES, WORKERS = (3, 5, 8, 12, 24, 40, 60), (1, 3, 4, 8, 16, 64)
BATCH, SLOTS = 4, 2
ENOUGH = 1.2
"""Times the least that are allowed."""


def amounts(rows: int, sizes: int, equal: bool) -> list[int]:
    """Rows of each size."""
    parts = [1 if equal else 40 + 37 * i % 161 for i in range(sizes)]
    return [max(1, rows * part // sum(parts)) for part in parts]


def least(counts: Sequence[int], workers: int, window: int = WINDOW) -> int:
    """The fewest changes of size in all, if all workers end together.

    If all rows are in the window: a worker and a size that it has are linked. Each group of linked ones needs one link
    less than it has members, and as each worker begins with a size for nothing, there is one change less for each group
    than there are sizes. With equal sizes there can be as many groups as the greatest common divisor, and with unequal
    ones there is one.

    If more rows follow, the window limits how long a worker can stay. As many workers as possible keep their size, and
    the rest of each size, a part `r` of a worker, is done by workers that roam. Rows come in at the pace at which they
    go out. So a size with `f` visits a second has `r (1 - r) / f` rows at most, half of it on average if all goes
    evenly; together they are the window, and the sum of `f` is least if each is in proportion to the root of
    `r (1 - r)`.
    """
    rows, sizes = sum(counts), len(counts)
    groups = math.gcd(sizes, workers) if len(set(counts)) == 1 else 1
    rests = [workers * count % rows / rows for count in counts]
    visits_a_second = sum(math.sqrt(r * (1 - r)) for r in rests) ** 2 / (2 * window)
    return sizes - groups + math.ceil(round(max(0, rows - window) / workers * visits_a_second, 3))


class Workers:
    """Workers that draw from one window until it is empty."""

    def __init__(self, count: int, requests: Iterator[Request], window: int = WINDOW):
        self.window = Window(lambda pixels: BATCH, count, window)
        self.changes: Counter[str] = Counter()
        self.now_s = 0.0
        self._requests = requests
        self._ended = False
        self._names = [f"worker {i}" for i in range(count)]
        self._in_flight = dict.fromkeys(self._names, 0)
        self._free_at_s = dict.fromkeys(self._names, 0.0)
        self._had: dict[str, Bucket] = {}
        self._events: list[tuple[float, int, str]] = []
        self._given = 0

    def run(self) -> None:
        self._fill()
        while self._give_once():
            pass
        while self._events:
            self.now_s, _, name = heapq.heappop(self._events)
            self._in_flight[name] -= 1
            self._fill()
            while self._give_once():
                pass
        assert not len(self.window)

    def _fill(self) -> None:
        while not self._ended and not self.window.full:
            request = next(self._requests, None)
            if request is None:
                self._ended = True
            else:
                self.window.add(request)

    def _give_once(self) -> bool:
        given = False
        free = [name for name in self._names if self._in_flight[name] < SLOTS]
        for name in sorted(free, key=self._in_flight.__getitem__):
            busy = [other for other in self._names if self._in_flight[other]] if self._ended else []
            batch = self.window.draw(self._ended, name, busy)
            if batch is not None:
                self._give(name, batch)
                given = True
                self._fill()
            elif not busy:
                break
        return given

    def _give(self, name: str, batch: Batch) -> None:
        self.changes[name] += self._had.get(name, batch.bucket) != batch.bucket
        self._had[name] = batch.bucket
        self._in_flight[name] += 1
        self._given += 1
        self._free_at_s[name] = max(self.now_s, self._free_at_s[name]) + batch.samples
        heapq.heappush(self._events, (self._free_at_s[name], self._given, name))


def measure(workers: int, counts: Sequence[int], window: int = WINDOW) -> dict[str, Any]:
    """Args: counts: rows of each size.

    Returns:
        changes, least: of all workers together.
        efficiency: ideal time / time.
    """
    order = [size for size, count in enumerate(counts) for _ in range(count)]
    random.Random(0).shuffle(order)
    params = [ImageParams(64 + 16 * size, 64, 4, 0.0, 0, 1) for size in range(len(counts))]
    requests = (Request(str(i), "t2i", ("p",), params[size], (params[size].width, 64)) for i, size in enumerate(order))
    crew = Workers(workers, requests, window)
    crew.run()
    return {
        "changes": sum(crew.changes.values()),
        "least": least(counts, workers, window),
        "efficiency": round(len(order) / workers / crew.now_s, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[4000, 40000])
    parser.add_argument("--out", type=Path, help="folder for size_changes.json")
    args = parser.parse_args()
    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "window": WINDOW, "batch": BATCH, "cases": []}
    for rows in args.rows:
        cases = []
        for sizes in SIZES:
            for workers in WORKERS:
                for equal in (True, False):
                    case = {"rows": rows, "sizes": sizes, "equal": equal, "workers": workers}
                    cases.append(case | measure(workers, amounts(rows, sizes, equal)))
        found["cases"] += cases
        above = [case for case in cases if case["changes"] > ENOUGH * case["least"]]
        for case in above:
            print(json.dumps(case))
        lowest = min(case["efficiency"] for case in cases)
        print(f"{rows} rows: {len(above)} of {len(cases)} above {ENOUGH} times the least; efficiency {lowest} and more")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(case) for case in found.pop("cases"))
        (args.out / "size_changes.json").write_text(json.dumps(found)[:-1] + ', "cases": [\n' + lines + "\n]}\n")


if __name__ == "__main__":
    main()
