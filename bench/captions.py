"""How close captions come to what a server can give: with a loopback server of known capacity, and with a real vLLM.

    python -m bench.captions slots [--rows 20000] [--latency 0.2] [--slots 256]
    python -m bench.captions vllm --vllm PYTHON [--rows 400]

slots: the tests' simulator, as a process of its own, answers each request after the latency, up to SLOTS at a time; the
images are 1024x1024 JPEGs. The maximum rate is slots / latency. Memory is that of all processes of fastgen together.

vllm: one vLLM server with the embedded VLM on this machine's CPU. First an ideal client: bodies made beforehand, the
best of several fixed concurrencies. Then `fastgen caption` on the same server, with files and everything. They take
turns, in one run.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

KINDS = 64
"""Number of different images; rows use them in turn."""


def photographs(folder: Path, count: int, side: int = 1024) -> list[Path]:
    """JPEGs that compress like photographs: smooth, with some grain."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 4, (side, side, 1))
        pixels = (np.asarray(coarse, np.float32) + grain).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=88)
    return paths


def fastgen(rows: Path, out: Path, *flags: str) -> dict:
    """One observed run of the command: its own figures, wall time, peak memory."""
    command = [sys.executable, "-m", "fastgen", "caption", str(rows), "-o", str(out), "--quiet", *flags]
    started = time.monotonic()
    process = subprocess.Popen(command)
    peak = cpu = 0.0
    while process.poll() is None:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            peak = max(peak, sum(p.memory_info().rss for p in family) / 1e6)
            cpu = max(cpu, sum(p.cpu_times().user + p.cpu_times().system for p in family))
        except psutil.Error:
            pass
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"fastgen caption ended with {process.returncode}")
    about = json.loads((out / "run.json").read_text())
    return {
        "captions_per_second": about["captions_per_second"],
        "wall_seconds": round(time.monotonic() - started, 2),
        "peak_mb": round(peak, 1),
        "cpu_seconds": round(cpu, 1),
    }


def against_slots(rows: int, latency: float, slots: int) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pictures = photographs(folder, KINDS)
        with (folder / "rows.jsonl").open("w") as file:
            file.writelines(
                json.dumps({"image": pictures[i % KINDS].name, "prompt": f"picture {i}"}) + "\n" for i in range(rows)
            )
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.simulator",
                "--fast",
                "--latency",
                str(latency),
                "--slots",
                str(slots),
                "--queue",
                "--model",
                "a-vlm",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            url = json.loads(server.stdout.readline())["openai"]
            os.environ["VLLM_API_KEY"] = "test-key"
            found = fastgen(
                folder / "rows.jsonl",
                folder / "out",
                "--base-url",
                url,
                "--model",
                "a-vlm",
                "--max-inflight",
                str(slots),
            )
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
        kb = sum(p.stat().st_size for p in pictures) / len(pictures) / 1000
    most = slots / latency
    return {
        "rows": rows,
        "picture_kb": round(kb),
        "most": most,
        "share_of_most": round(found["captions_per_second"] / most, 3),
    } | found


def against_vllm(python: str, rows: int) -> dict:
    from bench.quality import Vllm
    from fastgen.config.model_cards import TINY_VLM
    from fastgen.embedded.scenes import CANVASES, draw, random_scene

    rng = random.Random(5)
    with tempfile.TemporaryDirectory() as scratch, Vllm(python, TINY_VLM) as server:
        folder = Path(scratch)
        bodies = []
        with (folder / "rows.jsonl").open("w") as file:
            for number in range(rows):
                picture = Image.fromarray(draw(random_scene(rng, CANVASES[number % len(CANVASES)])))
                picture.save(folder / f"{number}.png")
                file.write(json.dumps({"image": f"{number}.png"}) + "\n")
                written = io.BytesIO()
                picture.save(written, "PNG")
                bodies.append(_body(written.getvalue()))
        url = f"http://127.0.0.1:{server.port}/v1"
        os.environ["VLLM_API_KEY"] = server.key
        ideal(url, server.key, bodies[:100], 16)  # the first requests of a server are slow
        rounds = []
        for turn in range(3):
            best = max(ideal(url, server.key, bodies, n) for n in (16, 32))
            mine = fastgen(
                folder / "rows.jsonl",
                folder / f"out{turn}",
                "--base-url",
                url,
                "--model",
                "tiny-vlm",
                "--max-inflight",
                "32",
                "--system",
                "",
            )
            rounds.append({"ideal": round(best, 2), **mine, "share": round(mine["captions_per_second"] / best, 3)})
            print(rounds[-1], flush=True)
    return {"rows": rows, "rounds": rounds}


def _body(png: bytes) -> bytes:
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Describe the image."}]
    return json.dumps(
        {"model": "tiny-vlm", "temperature": 0, "max_tokens": 512, "messages": [{"role": "user", "content": parts}]}
    ).encode()


def ideal(url: str, key: str, bodies: list[bytes], at_once: int) -> float:
    """Answers per second of a client that does nothing but send prepared bodies."""
    import urllib3

    http = urllib3.PoolManager(maxsize=at_once, retries=urllib3.Retry(0, redirect=False))
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    failed = threading.Event()

    def send(body: bytes) -> None:
        if http.request("POST", f"{url}/chat/completions", body=body, headers=headers).status != 200:
            failed.set()

    started = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(send, bodies))
    if failed.is_set():
        raise SystemExit("the server did not answer all of the ideal client's requests")
    return len(bodies) / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["slots", "vllm"])
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--vllm", metavar="PYTHON", help="a Python with vLLM")
    parser.add_argument("--out", type=Path, help="folder for captions-WHAT.json")
    args = parser.parse_args()
    if args.what == "slots":
        found = against_slots(args.rows or 20_000, args.latency, args.slots)
    elif args.vllm:
        found = against_vllm(args.vllm, args.rows or 400)
    else:
        raise SystemExit("vllm: needs --vllm PYTHON")
    command = " ".join("PYTHON" if word == args.vllm else word for word in sys.argv[1:])
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python -m bench.captions {command}",
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        **found,
    }
    print(json.dumps(found, indent=1))
    if args.out:
        (args.out / f"captions-{args.what}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
