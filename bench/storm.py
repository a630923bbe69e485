"""A bad day at a service: a share of all requests fails in every possible way, and for a while everything is turned
away.

    python -m bench.storm [--rows 5000] [--share 0.2] [--turned-away 120] [--in-200] [--backend vllm|openai|gemini]
                          [--task caption|t2i]

Runs `fastgen` against the tests' loopback simulator. Reports whether every row is done or failed with its true reason,
whether the output field contains anything but captions, and how many requests a finished row took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from PIL import Image

from tests.simulator import Faults, Simulator

MODELS = {
    ("vllm", "caption"): "a-vlm",
    ("openai", "caption"): "gpt-6-luna",
    ("gemini", "caption"): "gemini-3-flash",
    ("openai", "t2i"): "gpt-image-2",
    ("gemini", "t2i"): "gemini-nano-banana-2.1",
}
TERMINAL = {
    "insufficient_quota": "quota",
    "moderation": "refused",
    "image_safety": "refused",
    "no_image": "refused",
    "refusal_field": "refused",
    "refusal_text": "refused",
    "content_filter": "refused",
    "length": "truncated",
    "unauthorized": "unauthorized",
    "per_day_quota": "quota",
}
PASSING = {
    "rate_limit": "rate_limited",
    "rate_limit_after": "rate_limited",
    "error_500": "unavailable",
    "html_200": "malformed",
    "data_null": "malformed",
    "empty_choices": "malformed",
    "cut_json": "malformed",
    "hang": "unavailable",
    "disconnect": "unavailable",
    "empty_text": "empty",
    "overloaded": "unavailable",
}
CHAT = [*TERMINAL, *PASSING]
PICTURES = [
    name
    for name in CHAT
    if name not in ("refusal_field", "refusal_text", "content_filter", "length", "empty_text", "empty_choices")
]
ONLY_GEMINI = {"image_safety", "no_image", "per_day_quota"}
REFUSING = ("sorry", "cannot", "can't", "error", "unable")


def run(
    folder: Path,
    rows: int,
    share: float,
    turned_away_s: float,
    backend: str,
    task: str,
    inflight: int = 32,
    in_200: bool = False,
) -> dict:
    """One run; returns the figures.

    Args:
        folder: an empty one.
        in_200: whether what turns away comes with status 200.
    """
    Image.new("RGB", (96, 64), (220, 30, 35)).save(folder / "red.png")
    with (folder / "rows.jsonl").open("w") as file:
        for number in range(rows):
            image = {"image": "red.png"} if task == "caption" else {}
            file.write(json.dumps({"id": f"r{number}", "prompt": f"picture number {number}.", **image}) + "\n")
    names = [
        name for name in (CHAT if task == "caption" else PICTURES) if backend == "gemini" or name not in ONLY_GEMINI
    ]
    storm = (2.0, 2.0 + turned_away_s) if turned_away_s else None
    faults = Faults(share=share, names=names, seed=1, storm=storm, in_200=in_200)
    model = MODELS[backend, task]
    with Simulator(faults=faults, models={model}, hang_s=30, latency_s=0.02) as simulator:
        url = simulator.gemini_url if backend == "gemini" else simulator.openai_url
        command = [
            sys.executable,
            "-m",
            "fastgen",
            task,
            str(folder / "rows.jsonl"),
            "-o",
            str(folder / "out"),
            "--quiet",
            "--backend",
            backend,
            "--base-url",
            url,
            "--model",
            model,
            "--timeout",
            "5",
            "--max-inflight",
            str(inflight),
        ]
        keys = {f"{name}_API_KEY": "test-key" for name in ("VLLM", "OPENAI", "GEMINI")}
        started = time.monotonic()
        ended = subprocess.run(command, env={**os.environ, **keys}, capture_output=True, text=True)
        seconds = time.monotonic() - started
        requests = list(simulator.requests)
    found = {"rows": rows, "exit_code": ended.returncode, "stderr": ended.stderr[-500:], "seconds": round(seconds, 1)}
    if not (folder / "out" / "results.jsonl").exists():
        return found | {"table": False}
    table = [json.loads(line) for line in (folder / "out" / "results.jsonl").open()]
    return found | judge(table, [r for r in requests if r.operation != "models"], task)


def judge(table: list[dict], requests: list, task: str) -> dict:
    """Figures and faults of a finished run."""
    key = "caption" if task == "caption" else "images"
    by_row: dict[str, list] = {}
    for request in requests:
        if request.prompt:
            number = request.prompt.rpartition("number ")[2].split(".")[0]
            by_row.setdefault(f"r{number}", []).append(request)
    wrong, retried, words, kinds = [], [], [], Counter()
    for row in table:
        tries = by_row.get(row["id"], [])
        about = row["fastgen"]
        if about["status"] == "done":
            if key not in row or (task == "caption" and any(word in row[key].lower() for word in REFUSING)):
                words.append(row)
        else:
            kind = about["error"]["kind"]
            kinds[kind] += 1
            last = tries[-1].fault if tries else ""
            if key in row or kind != (TERMINAL | PASSING).get(last):
                wrong.append((row["id"], kind, [t.fault for t in tries], about["error"]["message"][:120]))
        for at, request in enumerate(tries[:-1]):
            if request.fault in TERMINAL:
                retried.append((row["id"], [t.fault for t in tries[at:]]))
    done = sum(row["fastgen"]["status"] == "done" for row in table)
    return {
        "table": True,
        "lines": len(table),
        "done": done,
        "failed": dict(kinds),
        "requests": len(requests),
        "turned_away": sum(r.fault in ("storm", "rate", "slots") for r in requests),
        "requests_per_finished_row": round(len(requests) / max(1, len(table)), 3),
        "faults": len({r.fault for r in requests} - {""}),
        "other_reason_than_true": wrong[:5],
        "terminal_kinds_retried": retried[:5],
        "no_caption_in_its_place": words[:5],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--turned-away", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--backend", choices=["vllm", "openai", "gemini"], default="vllm")
    parser.add_argument("--in-200", action="store_true", help="what turns away comes with status 200")
    parser.add_argument("--task", choices=["caption", "t2i"], default="caption")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        flags = (args.rows, args.share, args.turned_away, args.backend, args.task)
        print(json.dumps(run(Path(folder), *flags, in_200=args.in_200), indent=1))


if __name__ == "__main__":
    main()
