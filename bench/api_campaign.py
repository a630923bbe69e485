"""A run at a paid API whose disk is filled and which is killed and interrupted, again and again: what is paid twice,
and does the ledger say what the service counted?

    python -m bench.api_campaign [--rows 5000] [--full 3] [--kills 10] [--ctrl-c 3] [--at-once 16] [--seed 0]

The service is a loopback server with its own count and its own prices. It bills every request that reaches it whole,
also if nobody waits for the answer any more. The run folder is on a small tmpfs, which takes the right to mount. Prints
one JSON object. The exit code is 1 if a promise of docs/apis.md does not hold, 2 if no disk could be mounted.
"""

from __future__ import annotations

import argparse
import base64
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
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from tests.simulator.prices import Usage, drawn_tokens, text_tokens

MODEL, QUALITY, SIDE = "gpt-image-2", "low", 1024
PATIENCE_S = 300.0
LATENCY_S = (0.05, 0.25)
DISK_MIB = 128
SAME_USD = 1e-6
LOST = "in flight when the run was killed"
"""How the ledger's entries for requests without an answer begin."""


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # with Python's 5, connections are reset when a run begins

    def handle_error(self, *about: object) -> None:
        """A client that was killed has closed its connections."""


class Service:
    """Answers requests for images, each after a random time, and counts them by prompt."""

    def __init__(self, seed: int):
        self.paid: Counter[str] = Counter()
        """Requests by prompt that arrived whole."""
        self.usd = 0.0
        self.waiting = 0
        """Requests that are not answered yet."""
        self.answered = 0
        """Answers that somebody took."""
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        data = BytesIO()
        Image.new("RGB", (SIDE, SIDE), (30, 90, 160)).save(data, "PNG", compress_level=1)
        self._picture = base64.b64encode(data.getvalue()).decode()
        self._server = _Quiet(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Service:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def begin(self, prompt: str) -> tuple[dict, float]:
        """A request has arrived: it is counted now. Returns its answer, and after how many seconds it comes."""
        used = usage_of(prompt)
        with self._lock:
            self.paid[prompt] += 1
            self.usd += used.usd(MODEL)
            self.waiting += 1
            seconds = self._random.uniform(*LATENCY_S)
        details = {"text_tokens": used.text_in, "image_tokens": 0}
        usage = {"input_tokens": used.text_in, "output_tokens": used.image_out, "input_tokens_details": details}
        usage["total_tokens"] = used.total
        return {"created": 1, "data": [{"b64_json": self._picture}], "usage": usage}, seconds

    def end(self, taken: bool) -> None:
        with self._lock:
            self.waiting -= 1
            self.answered += taken

    def _handler(service) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = self.rfile.read(length)
                if len(body) < length:  # it broke off
                    self.close_connection = True
                    return
                answer, seconds = service.begin(json.loads(body)["prompt"])
                time.sleep(seconds)
                taken = self._send(json.dumps(answer).encode())
                service.end(taken)

            def _send(self, data: bytes) -> bool:
                try:
                    self.send_response(200)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True
                    return False
                return True

            def log_message(self, *words: object) -> None: ...

        return Handler


def usage_of(prompt: str) -> Usage:
    return Usage(text_in=text_tokens(prompt), image_out=drawn_tokens((SIDE, SIDE), QUALITY))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs. Raises OSError: it cannot be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", disk], capture_output=True)
    if done.returncode:
        raise OSError(done.stderr.decode().strip())
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


class Campaign:
    """Args: folder: for the rows; disk: for the run; events: "kill", "full" and "ctrl-c", in their order."""

    def __init__(self, folder: Path, disk: Path, service: Service, rows: int, events: list[str], at_once: int):
        self.service, self.events, self.at_once = service, events, at_once
        self.prompts = {f"r{i}": f"picture {i}" + " and more" * (i % 7) for i in range(rows)}
        self.out, self.ballast = disk / "out", disk / "ballast"
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps({"id": id, "prompt": text}) + "\n" for id, text in self.prompts.items()))
        self._command = [sys.executable, "-m", "fastgen", "t2i", str(path), "-o", str(self.out), "--quiet"]
        self._command += ["--backend", "openai", "--model", MODEL, "--base-url", service.url, "--quality", QUALITY]
        self._command += ["--size", f"{SIDE}x{SIDE}", "--max-inflight", str(at_once)]
        self._random = random.Random(len(events))
        self.stops: list[dict[str, Any]] = []
        self.faults: list[str] = []

    def run(self) -> dict[str, Any]:
        """Returns the figures."""
        started = time.monotonic()
        for number, event in enumerate(self.events, 1):
            self._stop(event, len(self.prompts) * number // (len(self.events) + 1))
        last = self._start()
        _, errors = last.communicate(timeout=PATIENCE_S * 4)
        self._expect(last.returncode == 0, f"the last run ended with {last.returncode}: {errors[-500:]}")
        return self._figures(time.monotonic() - started)

    def _start(self) -> subprocess.Popen:
        environment = {**os.environ, "OPENAI_API_KEY": "test-key"}
        return subprocess.Popen(
            self._command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def _stop(self, event: str, after: int) -> None:
        """Run until so many rows have been asked for, and at a random moment soon after, with requests under way, let
        it happen."""
        process = self._start()
        began, service = sum(self.service.paid.values()), self.service
        limit = time.monotonic() + PATIENCE_S
        while len(service.paid) < after or sum(service.paid.values()) < began + self.at_once or not service.waiting:
            if process.poll() is not None or time.monotonic() > limit:
                break
            time.sleep(0.002)
        time.sleep(self._random.uniform(0, LATENCY_S[1]))
        under_way = service.waiting
        if event == "full":
            self._fill()
        else:
            os.killpg(process.pid, signal.SIGKILL if event == "kill" else signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
        while service.waiting:
            time.sleep(0.002)
        self.ballast.unlink(missing_ok=True)
        code = {"kill": -signal.SIGKILL, "full": 1, "ctrl-c": 130}[event]
        self._expect(process.returncode == code, f"{event}: exit code {process.returncode}: {errors[-500:]}")
        self._expect(event != "full" or "No space left on device" in errors, f"full: {errors[-500:]}")
        done = {line["id"] for line in self._lines("journal.jsonl")}
        lost = {id for id, prompt in self.prompts.items() if service.paid[prompt]} - done
        held = self._open()
        self.stops.append({"event": event, "at_the_service": under_way, "in_the_ledger": len(held), "lost": lost})

    def _fill(self) -> None:
        """Take all free space at once, so that nothing is taken of what the run releases then."""
        with self.ballast.open("wb", 0) as file:
            disk = os.statvfs(self.ballast)
            for blocks in range(disk.f_bavail, 0, -1):
                try:
                    os.posix_fallocate(file.fileno(), 0, blocks * disk.f_frsize)
                    return
                except OSError:  # the run has taken some in the meantime
                    pass

    def _expect(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)

    def _lines(self, name: str) -> list[dict]:
        """The whole lines of a journal or ledger."""
        whole = (self.out / name).read_text().rpartition("\n")[0]
        return [json.loads(line)["rec"] for line in whole.splitlines()]

    def _open(self) -> set[str]:
        """Rows with a request that the ledger has no end of."""
        found: set[str] = set()
        for line in self._lines("spending.jsonl"):
            (found.add if "reserved" in line else found.discard)(line.get("id", ""))
        return found

    def _figures(self, seconds: float) -> dict[str, Any]:
        service, ledger = self.service, self._lines("spending.jsonl")
        twice = {event: sum(len(s["lost"]) for s in self.stops if s["event"] == event) for event in set(self.events)}
        kills = [stop for stop in self.stops if stop["event"] == "kill"]
        in_flight = [max(stop["in_the_ledger"], stop["at_the_service"]) for stop in kills]
        # What had gone out by the ledger, and never arrived: the kill came between.
        counted = Counter(line["id"] for line in ledger if line.get("why", "").startswith(LOST))
        counted.subtract(id for stop in kills for id in stop["lost"])
        vanished = sum(count * usage_of(self.prompts[id]).usd(MODEL) for id, count in counted.items() if count > 0)
        table = [json.loads(line) for line in (self.out / "results.jsonl").read_text().splitlines()]
        done = sum(row["fastgen"]["status"] == "done" for row in table)
        usd = ledger[-1]["total"]
        again = sum(count - 1 for count in service.paid.values())
        self._expect(done == len(table) == len(self.prompts), f"{done} rows are done")
        self._expect(again == sum(twice.values()), f"{again} requests were paid twice, {twice} are explained")
        self._expect(not twice.get("full") and not twice.get("ctrl-c"), "paid twice without a kill")
        for stop, most in zip(kills, in_flight, strict=True):
            # An answer that has left the service and is not in the journal yet is in flight too, and nobody counts it.
            most = max(most, self.at_once)
            self._expect(len(stop["lost"]) <= most, f"{len(stop['lost'])} lost at a kill with {most} in flight")
        self._expect(usd > service.usd - SAME_USD, "the ledger has less than the service")
        self._expect(abs(usd - service.usd - vanished) < SAME_USD, "the ledger has not what the service counted")
        return {
            "rows": len(self.prompts),
            "done": done,
            "stops": dict(Counter(self.events)),
            "requests_paid": sum(service.paid.values()),
            "requests_answered": service.answered,
            "paid_twice": twice,
            "in_flight_at_each_kill": in_flight,
            "lost_at_each_kill": [len(stop["lost"]) for stop in kills],
            "sent_but_never_arrived": sum(count for count in counted.values() if count > 0),
            "ledger_usd": round(usd, 6),
            "service_usd": round(service.usd, 6),
            "ledger_notes": dict(Counter(line["why"] for line in ledger if line.get("why"))),
            "seconds": round(seconds, 1),
            "faults": self.faults,
        }


def campaign(folder: Path, rows: int, full: int, kills: int, ctrl_c: int, at_once: int, seed: int) -> dict[str, Any]:
    """One campaign in an empty folder; returns its figures. Raises OSError: no disk can be mounted."""
    events = ["full"] * full + ["kill"] * kills + ["ctrl-c"] * ctrl_c
    random.Random(seed).shuffle(events)
    with small_disk(folder) as disk, Service(seed) as service:
        return Campaign(folder, disk, service, rows, events, at_once).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--full", type=int, default=3, help="how often the disk is filled")
    parser.add_argument("--kills", type=int, default=10, help="how often all processes get SIGKILL")
    parser.add_argument("--ctrl-c", type=int, default=3, help="how often all processes get SIGINT")
    parser.add_argument("--at-once", type=int, default=16, help="--max-inflight")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = campaign(Path(folder), args.rows, args.full, args.kills, args.ctrl_c, args.at_once, args.seed)
        except OSError as error:
            print(f"no small disk can be mounted here: {error}", file=sys.stderr)
            raise SystemExit(2) from None
    print(json.dumps(found, indent=1))
    raise SystemExit(bool(found["faults"]))


if __name__ == "__main__":
    main()
