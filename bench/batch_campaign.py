"""A run by OpenAI's or Gemini's Batch API that is killed again and again: is anything submitted twice, is anything
lost, and does the ledger say what the service counted?

    python -m bench.batch_campaign [--api openai] [--rows 2000] [--kills 20] [--batch-rows 100] [--seed 0]

The service is the simulator of the tests, with its own count and its own prices; it bills what it has done of a batch
at half the price. A third of the kills come at the worst moment: the service has made a batch, and its answer is not
out yet. The others come at random. Some requests fail once, one batch expires half done, and one is not begun because
too much waits. Prints one JSON object. The exit code is 1 if a promise of docs/apis.md does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from tests.simulator import Simulator
from tests.simulator.batches import Batches, Job

MODELS = {"openai": "gpt-6-luna", "gemini": "gemini-3-flash"}
PRICES = {"text_in": 0.1, "image_in": 0.1, "text_out": 0.5, "image_out": 0.5}
PATIENCE_S = 600.0
SAME_USD = 1e-6
FAIL_EVERY = 50
"""One row in so many fails once."""


class Campaign:
    """Args: folder: an empty one; sim: the service."""

    def __init__(self, folder: Path, api: str, rows: int, kills: int, batch_rows: int, seed: int):
        self.rows, self.kills, self.api = rows, kills, api
        self.random = random.Random(seed)
        expire, refuse = [None, None, 0.5], ["", "", "", "", "token_limit_exceeded"]
        self.batches = Batches(6.0, expire=expire, refuse=refuse, at_create=self._made)
        prices = {MODELS[api]: tuple(PRICES.values())}
        self.sim = Simulator(batches=self.batches, prices=prices, record=False)
        self.out = folder / "out"
        self.faults: list[str] = []
        self.stops: Counter[str] = Counter()
        self._at_next_job: subprocess.Popen | None = None
        self._killed = threading.Event()
        Image.effect_noise((64, 48), 60).convert("RGB").save(folder / "one.png")
        path, prices_path = folder / "rows.jsonl", folder / "prices.toml"
        path.write_text("".join(json.dumps(self._row(number)) + "\n" for number in range(rows)))
        table = ", ".join(f"{name} = {usd}" for name, usd in PRICES.items())
        prices_path.write_text(f'[{api}.models."{MODELS[api]}"]\ntasks = ["caption"]\nprice = {{ {table} }}\n')
        self._environment = {**os.environ, "FASTGEN_SERVICES": str(prices_path)}
        self._environment |= {"OPENAI_API_KEY": "test-key", "GEMINI_API_KEY": "test-key"}
        self._command = [sys.executable, "-m", "fastgen", "caption", str(path), "-o", str(self.out), "--quiet"]
        self._command += ["--backend", api, "--model", MODELS[api], "--batch-api", "--batch-rows", str(batch_rows)]
        self._command += ["--max-inflight", "2", "--max-cost", "100"]

    def _row(self, number: int) -> dict[str, Any]:
        fault = " fault:error_500:once" if number % FAIL_EVERY == FAIL_EVERY - 1 else ""
        return {"id": f"r{number}", "images": ["one.png"], "prompt": f"what is {number}?{fault}"}

    def run(self) -> dict[str, Any]:
        """Returns the figures."""
        began = time.monotonic()
        with self.sim:
            url = self.sim.openai_url if self.api == "openai" else self.sim.gemini_url
            self._command += ["--base-url", url]
            kinds = ["at a new batch" if number % 3 == 0 else "at random" for number in range(self.kills)]
            for kind in kinds:
                self._kill(kind)
            last = self._start()
            _, errors = last.communicate(timeout=PATIENCE_S)
            self._expect(last.returncode == 0, f"the last run ended with {last.returncode}: {errors[-1500:]}")
            return self._figures(time.monotonic() - began)

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            self._command, stderr=subprocess.PIPE, text=True, env=self._environment, start_new_session=True
        )

    def _made(self, job: Job) -> None:
        """The service has made a batch; its answer is not out yet."""
        process, self._at_next_job = self._at_next_job, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            self._killed.set()

    def _kill(self, kind: str) -> None:
        process = self._start()
        self._killed.clear()
        if kind == "at a new batch":
            self._at_next_job = process
            if not self._killed.wait(20):  # there was none
                kind = "at random"
        self._at_next_job = None
        if kind == "at random":
            time.sleep(self.random.uniform(1.0, 9.0))
        ended = process.poll()
        if not self._killed.is_set() and ended is None:
            os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE_S)
        self._expect(process.returncode in (0, -signal.SIGKILL), f"ended with {process.returncode}: {errors[-1500:]}")
        self.stops[kind if process.returncode else "too late"] += 1

    def _expect(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)

    def _figures(self, seconds: float) -> dict[str, Any]:
        batches = self.batches
        table = [json.loads(line) for line in (self.out / "results.jsonl").read_text().splitlines()]
        done = sum(row["fastgen"]["status"] == "done" for row in table)
        ledger = [json.loads(line)["rec"] for line in (self.out / "spending.jsonl").read_text().splitlines()]
        usd, results_usd = ledger[-1]["total"], sum(row["fastgen"].get("cost_usd", 0.0) for row in table)
        twice = sum(count - 1 for count in batches.paid.values() if count > 1)
        names = Counter(job.name for job in batches.jobs.values() if job.state != "failed")
        again = sum(count - 1 for count in names.values())
        self._expect(not self.stops["too late"], f"{self.stops['too late']} kills came after the end of the run")
        self._expect(done == len(table) == self.rows, f"{done} of {self.rows} rows are done")
        self._expect(not twice, f"{twice} requests were paid twice")
        self._expect(not again, f"{again} batches were submitted twice")
        self._expect(len(batches.paid) == self.rows, f"{len(batches.paid)} different requests were paid")
        self._expect(abs(usd - batches.usd) < SAME_USD, "the ledger has not what the service counted")
        return {
            "api": self.api,
            "rows": self.rows,
            "done": done,
            "kills": dict(self.stops),
            "batches": len(batches.jobs),
            "batches_submitted_twice": again,
            "requests_paid": sum(batches.paid.values()),
            "requests_paid_twice": twice,
            "requests_not_done_by_an_expired_batch": sum(len(job.left) for job in batches.jobs.values()),
            "ledger_usd": round(usd, 8),
            "service_usd": round(batches.usd, 8),
            "results_usd": round(results_usd, 8),
            "full_price_usd": round(2 * batches.usd, 8),
            "seconds": round(seconds, 1),
            "faults": self.faults,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", choices=tuple(MODELS), default="openai")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20, help="how often all processes get SIGKILL")
    parser.add_argument("--batch-rows", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = Campaign(Path(folder), args.api, args.rows, args.kills, args.batch_rows, args.seed).run()
    print(json.dumps(found, indent=1))
    raise SystemExit(bool(found["faults"]))


if __name__ == "__main__":
    main()
