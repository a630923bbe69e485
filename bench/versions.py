"""Compares another checkout of fastgen with this one: the same commands, taking turns, must give the same results as
fast.

    python -m bench.versions --other CHECKOUT [--rows 64] [--rounds 3] [--only NAME] [--vllm HOME]

Commands: t2i, edit, caption, demo, dataflow (prompts to images through the DataFlow face) and bench. Each round runs
every command once with each version, in changing order. Results are the same if the tables agree except for seconds and
paths of run folders, and the image files agree byte for byte; for bench, if as many images are right. `seconds` is the
total time of the command; `CPU` is that of all its processes, which a busy machine changes little; `rate` is that of
run.json or of bench's arm `plain`, after loading. HOME is a FASTGEN_HOME with vLLM, for captions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
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
    """Inputs for the commands that take some, with images that ship with the package."""
    pictures = HERE / "fastgen" / "examples" / "small" / "pictures"
    names = sorted(path.name for path in pictures.iterdir())
    prompts = [f"a {color} circle on a {other} background" for color in COLORS for other in COLORS if color != other]
    tables = {
        "t2i": [{"prompt": prompts[i % len(prompts)], "seed": i, "steps": 6 + i % 3} for i in range(count)],
        "edit": [{"image": names[i % len(names)], "prompt": "make it blue", "seed": i} for i in range(count // 2)],
        "caption": [{"image": names[i % len(names)]} for i in range(count)],
        "dataflow": [{"conversations": [{"content": prompts[i % len(prompts)], "role": "user"}]} for i in range(count)],
    }
    for task, rows in tables.items():
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {task: folder / f"{task}.jsonl" for task in tables}


def command_of(name: str, rows: dict[str, Path], out: Path) -> list[str]:
    """The arguments of Python."""
    tiny = ["--gpus", "cpu", "--model", "tiny"]
    if name == "demo":
        return ["-m", "fastgen", "demo", "-o", str(out)]
    if name == "bench":
        few = ["--only", "plain", "--rounds", "1", "--rows", "32"]
        return ["-m", "fastgen", "bench", "t2i", "-o", str(out), "-q", *few, *tiny]
    if name == "dataflow":
        program = "fastgen.dataflow.statics.pipelines.gpu_pipelines.text_to_image_generation_pipeline"
        where = ["--first_entry_file_name", str(rows["dataflow"]), "--cache_path", str(out)]
        return ["-m", program, "--model_name", "tiny", *where, "--steps", "8", "--height", "128", "--width", "128"]
    pictures = HERE / "fastgen" / "examples" / "small" / "pictures"
    root = ["--image-root", str(pictures)] if name != "t2i" else []
    return ["-m", "fastgen", name, str(rows[name]), "-o", str(out), "-q", *root, *tiny]


def play(checkout: Path, name: str, rows: dict[str, Path], out: Path, home: str) -> dict:
    """One command with one version."""
    shutil.rmtree(out, ignore_errors=True)
    environment = (
        os.environ | {"PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"} | ({"FASTGEN_HOME": home} if home else {})
    )
    started, used = time.monotonic(), cpu_seconds()
    done = subprocess.run(
        [sys.executable, *command_of(name, rows, out)], env=environment, cwd=checkout, capture_output=True, text=True
    )
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit(f"{checkout}: {name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return {
        "rate": rate(name, out, seconds),
        "seconds": seconds,
        "CPU": cpu_seconds() - used,
        "results": results(out),
    }


def cpu_seconds() -> float:
    """Of all processes that ended, theirs included."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def rate(name: str, out: Path, seconds: float) -> float:
    """Results per second."""
    if name == "bench":
        return arm(out)["images_per_second"]
    if (about := out / "run.json").exists():
        return json.loads(about.read_text())[f"{'captions' if name == 'caption' else 'images'}_per_second"]
    return len(results(out)) / seconds


def arm(out: Path) -> dict:
    return next(one for one in json.loads((out / "bench.json").read_text())["arms"] if one["name"] == "plain")


def results(out: Path) -> list:
    """The results of the rows, without what differs between any two runs."""
    if (out / "bench.json").exists():
        return [arm(out)["score"]]
    found: list = []
    for table in sorted(path for path in out.rglob("*.jsonl") if path.name == "results.jsonl" or "step" in path.name):
        for line in table.read_text().splitlines():
            row = json.loads(line)
            for name in ("seconds", "files"):
                row.get("fastgen", {}).pop(name, None)
            pictures = row.pop("images", None) or row.pop("edited_images", None) or []
            found.append([row, [(table.parent / path).read_bytes() for path in pictures]])
    if not found:
        raise SystemExit(f"{out}: no results")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", required=True, type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--vllm", default="", metavar="HOME")
    arguments = parser.parse_args()
    versions = {"this": HERE, "other": arguments.other.resolve()}
    names = arguments.only or ["t2i", "edit", *(["caption"] if arguments.vllm else []), "demo", "dataflow", "bench"]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {arguments.rows} rows")
    print("| command | same results | rate this / other | seconds this / other | CPU this / other |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        inputs = write_rows(folder, arguments.rows)
        for name in names:
            ratios: dict[str, list[float]] = {"rate": [], "seconds": [], "CPU": []}
            same = True
            for turn in range(arguments.rounds):
                order = list(versions) if turn % 2 else list(versions)[::-1]
                found = {
                    version: play(versions[version], name, inputs, folder / "out", arguments.vllm) for version in order
                }
                same = same and found["this"]["results"] == found["other"]["results"]
                for figure, values in ratios.items():
                    values.append(found["this"][figure] / found["other"][figure])
            cells = [f"{median(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in ratios.values()]
            print(f"| {name} | {'yes' if same else 'NO'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
