"""Compares another checkout of fastgen with this one: the same commands, taking turns, must give the same results as
fast.

    python -m bench.versions --other CHECKOUT [--rows 64] [--rounds 3] [--vllm HOME]

Each round runs every command once with each version, in changing order. Results are the same if the tables agree except
for seconds and paths of run folders, and the image files agree byte for byte. `seconds` is the total time of the
command; `rate` is that of run.json, after loading. HOME is a FASTGEN_HOME with vLLM, for captions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).parents[1]
COLORS = ("red", "blue", "green", "yellow")


def write_rows(folder: Path, count: int) -> dict[str, Path]:
    """Inputs for the three tasks, with images that ship with the package."""
    pictures = HERE / "fastgen" / "examples" / "small" / "pictures"
    names = sorted(path.name for path in pictures.iterdir())
    prompts = [f"a {color} circle on a {other} background" for color in COLORS for other in COLORS if color != other]
    tables = {
        "t2i": [{"prompt": prompts[i % len(prompts)], "seed": i, "steps": 6 + i % 3} for i in range(count)],
        "edit": [{"image": names[i % len(names)], "prompt": "make it blue", "seed": i} for i in range(count // 2)],
        "caption": [{"image": names[i % len(names)]} for i in range(count)],
    }
    for task, rows in tables.items():
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {task: folder / f"{task}.jsonl" for task in tables}


def play(checkout: Path, task: str, rows: Path, out: Path, home: str) -> dict:
    """One command with one version."""
    shutil.rmtree(out, ignore_errors=True)
    flags = ["--image-root", str(HERE / "fastgen" / "examples" / "small" / "pictures")] if task != "t2i" else []
    flags += ["--gpus", "cpu", "--model", "tiny"]
    environment = (
        os.environ | {"PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"} | ({"FASTGEN_HOME": home} if home else {})
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "fastgen", task, str(rows), "-o", str(out), "-q", *flags],
        env=environment,
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit(f"{checkout}: fastgen {task} ended with {done.returncode}: {done.stderr[-2000:]}")
    about = json.loads((out / "run.json").read_text())
    made = "captions" if task == "caption" else "images"
    return {"seconds": seconds, "rate": about[f"{made}_per_second"]}


def results(out: Path) -> list:
    """The results of the rows, without what differs between any two runs."""
    found = []
    for line in (out / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name in ("seconds", "files"):
            row["fastgen"].pop(name, None)
        pictures = row.pop("images", None) or row.pop("edited_images", None) or []
        found.append([row, [(out / path).read_bytes() for path in pictures]])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", required=True, type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vllm", default="", metavar="HOME")
    arguments = parser.parse_args()
    versions = {"this": HERE, "other": arguments.other.resolve()}
    tasks = ["t2i", "edit", *(["caption"] if arguments.vllm else [])]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {arguments.rows} rows")
    print("| command | same results | rate this / other | seconds this / other |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = write_rows(folder, arguments.rows)
        for task in tasks:
            ratios: dict[str, list[float]] = {"rate": [], "seconds": []}
            same = True
            for turn in range(arguments.rounds):
                order = list(versions) if turn % 2 else list(versions)[::-1]
                found = {
                    version: play(versions[version], task, inputs[task], folder / version, arguments.vllm)
                    for version in order
                }
                same = same and results(folder / "this") == results(folder / "other")
                for figure, values in ratios.items():
                    values.append(found["this"][figure] / found["other"][figure])
            cells = [f"{median(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in ratios.values()]
            print(f"| {task} | {'yes' if same else 'NO'} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
