"""Compares another checkout of fastgen with this one: the same commands, taking turns, must give the same results as
fast.

    python -m bench.versions --other CHECKOUT [--rows 64] [--rounds 3] [--only NAME] [--vllm HOME]

Commands: t2i, edit, caption, demo, dataflow (prompts to images through the DataFlow face) and bench. Each round runs
every command once with each version, in changing order. `t2i-alone` and `edit-alone` have rows of many sizes, steps and
guidances, with masks and several input images, each image alone in its forward passes: so nothing but the versions can
make a difference. Where images share passes, which ones do depends on the moment, and with it their rounding.

Results are the same if the tables agree except for seconds and paths of run folders, and the image files agree byte for
byte; for bench, if as many images are right. `pixels` is the largest difference of any two images, of 255, and how many
differ. `seconds` is the total time of the command; `CPU` is that of all its processes, which a busy machine changes
little; `rate` is that of run.json or of bench's arm `plain`, after loading. HOME is a FASTGEN_HOME with vLLM, for
captions.
"""

from __future__ import annotations

import argparse
import io
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
PICTURES = HERE / "fastgen" / "examples" / "small" / "pictures"
COLORS = ("red", "blue", "green", "yellow")
ALONE = "-alone"
SIZES = ("128x128", "144x112", "112x144", "64x64", "256x128", "96x160")


def write_rows(folder: Path, count: int) -> dict[str, Path]:
    """Inputs for the commands that take some, with images that ship with the package."""
    names = sorted(path.name for path in PICTURES.iterdir())
    prompts = [f"a {color} circle on a {other} background" for color in COLORS for other in COLORS if color != other]
    tables = {
        "t2i": [{"prompt": prompts[i % len(prompts)], "seed": i, "steps": 6 + i % 3} for i in range(count)],
        "edit": [{"image": names[i % len(names)], "prompt": "make it blue", "seed": i} for i in range(count // 2)],
        "caption": [{"image": names[i % len(names)]} for i in range(count)],
        "dataflow": [{"conversations": [{"content": prompts[i % len(prompts)], "role": "user"}]} for i in range(count)],
    }
    tables |= {
        f"t2i{ALONE}": [
            {"prompt": prompts[i % len(prompts)], "seed": i, "size": SIZES[i % len(SIZES)], **_schedule(i)}
            for i in range(count)
        ],
        f"edit{ALONE}": [{**row, **_edit(i, names), **_schedule(i)} for i, row in enumerate(tables["edit"])],
    }
    for task, rows in tables.items():
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {task: folder / f"{task}.jsonl" for task in tables}


def _schedule(i: int) -> dict:
    return {"steps": (8, 28, 5)[i % 3], "guidance": (1.0, 3.5, 6.0)[i // 3 % 3]}


def _edit(i: int, names: list[str]) -> dict:
    """One input image, one with a mask, or two."""
    mask, picture = names[0], names[1]  # circle-mask.png, circle.png
    kinds: tuple[dict, ...] = (
        {},
        {"image": picture, "mask": mask},
        {"image": [names[i % len(names)], names[(i + 1) % len(names)]]},
    )
    return kinds[i % len(kinds)]


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
    task = name.removesuffix(ALONE)
    root = ["--image-root", str(PICTURES)] if task != "t2i" else []
    alone = ["--batch-size", "1"] if name != task else []
    return ["-m", "fastgen", task, str(rows[name]), "-o", str(out), "-q", *root, *alone, *tiny]


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


def difference(these: list, others: list) -> tuple[int, int, int]:
    """The largest difference of two images of the same row, of 255, how many images differ, and how many there are."""
    import numpy as np
    from PIL import Image

    def pixels(data: bytes):
        return np.asarray(Image.open(io.BytesIO(data))).astype(int)

    largest, differing, count = 0, 0, 0
    for one, other in zip(these, others, strict=True):
        for a, b in zip(one[1], other[1], strict=True) if isinstance(one, list) else ():
            a, b = pixels(a), pixels(b)
            apart = int(abs(a - b).max()) if a.shape == b.shape else 255
            largest, differing, count = max(largest, apart), differing + (apart > 0), count + 1
    return largest, differing, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", required=True, type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--vllm", default="", metavar="HOME")
    arguments = parser.parse_args()
    versions = {"this": HERE, "other": arguments.other.resolve()}
    alone = [f"t2i{ALONE}", f"edit{ALONE}"]
    captions = ["caption"] if arguments.vllm else []
    names = arguments.only or ["t2i", "edit", *alone, *captions, "demo", "dataflow", "bench"]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {arguments.rows} rows")
    print("| command | same results | pixels | rate this / other | seconds this / other | CPU this / other |")
    print("|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        inputs = write_rows(folder, arguments.rows)
        for name in names:
            ratios: dict[str, list[float]] = {"rate": [], "seconds": [], "CPU": []}
            same, apart = True, (0, 0, 0)
            for turn in range(arguments.rounds):
                order = list(versions) if turn % 2 else list(versions)[::-1]
                found = {
                    version: play(versions[version], name, inputs, folder / "out", arguments.vllm) for version in order
                }
                same = same and found["this"]["results"] == found["other"]["results"]
                apart = max(apart, difference(found["this"]["results"], found["other"]["results"]))
                for figure, values in ratios.items():
                    values.append(found["this"][figure] / found["other"][figure])
            cells = [f"{median(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in ratios.values()]
            pixels = f"{apart[0]}, {apart[1]} of {apart[2]}" if apart[2] else ""
            print(f"| {name} | {'yes' if same else 'NO'} | {pixels} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
