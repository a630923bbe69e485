"""Three image servers of different speeds as one fleet: what share of the sum of their rates is used, and what is lost
when one goes and comes back.

    python -m bench.fleet [--rows 600]

The servers are threads here that work on one image per slot for a fixed time. The one that goes drops every connection
between a quarter and a half of the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from tests.backends.remote.conftest import image_answer, serving

SPEEDS = {"fast": (8, 0.8), "middle": (4, 0.8), "slow": (2, 0.8)}
"""Name -> (images at once, seconds for each)."""


class Slots:
    """What an image server of so many slots answers."""

    def __init__(self, slots: int, seconds: float, is_down) -> None:
        self.slots, self.seconds, self.is_down = threading.Semaphore(slots), seconds, is_down
        self.lock, self.done, self.dropped = threading.Lock(), 0, 0
        self.first = self.last = 0.0
        self.image = image_answer()

    def __call__(self, handler: SimpleNamespace, body: bytes) -> None:
        with self.lock:
            self.first = self.first or time.monotonic()
        if self.is_down():
            with self.lock:
                self.dropped += 1
            handler.close_connection = True
            raise ConnectionResetError
        with self.slots:
            time.sleep(self.seconds)
        handler.reply(200, self.image, Content_Type="application/json")
        with self.lock:
            self.done, self.last = self.done + 1, time.monotonic()


def run(rows: int, goes: bool) -> dict:
    """One run; `goes`: whether the middle server goes and comes back."""
    made: list[Slots] = []

    def is_down() -> bool:
        return goes and rows // 4 <= sum(one.done for one in made) < rows // 2

    made += [Slots(slots, seconds, is_down if name == "middle" else bool) for name, (slots, seconds) in SPEEDS.items()]
    with tempfile.TemporaryDirectory() as scratch, serving(made[0]) as a, serving(made[1]) as b, serving(made[2]) as c:
        folder = Path(scratch)
        lines = (json.dumps({"id": str(i), "prompt": f"picture {i}"}) + "\n" for i in range(rows))
        (folder / "rows.jsonl").write_text("".join(lines))
        urls = [word for server in (a, b, c) for word in ("--base-url", f"{server.url}/v1")]
        command = [sys.executable, "-m", "fastgen", "t2i", str(folder / "rows.jsonl"), "-o", str(folder / "out")]
        command += ["--backend", "openai", "--model", "m", "--quiet", *urls]
        ended = subprocess.run(command, env={**os.environ, "OPENAI_API_KEY": "x"})
        table = [json.loads(line) for line in (folder / "out" / "results.jsonl").open()]
    seconds = max(one.last for one in made) - min(one.first for one in made)
    most = sum(slots / each for slots, each in SPEEDS.values())
    return {
        "exit_code": ended.returncode,
        "done": sum(row["fastgen"]["status"] == "done" for row in table),
        "answered": sum(one.done for one in made),
        "by_server": {name: one.done for name, one in zip(SPEEDS, made, strict=True)},
        "dropped": sum(one.dropped for one in made),
        "images_per_second": round(rows / seconds, 1),
        "share_of_the_sum": round(rows / seconds / most, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=600)
    args = parser.parse_args()
    print(json.dumps({"all_stay": run(args.rows, False)}), flush=True)
    print(json.dumps({"one_goes": run(args.rows, True)}), flush=True)


if __name__ == "__main__":
    main()
