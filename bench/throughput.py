"""fastgen against hand-written diffusers loops on the embedded model: images per second, interleaved in one run.

    python -m bench.throughput [--scenario uniform|realistic|both] [--rows N] [--rounds N] [--out FOLDER]

uniform     rows of one size, one image each, no prompt twice
realistic   four sizes, n of 1 to 3, a third of the prompts repeated, shuffled

Weights, dtype (float32), steps, text length and CPU threads are the same for all. The loops are warmed up and their
loading is not counted. For fastgen the time from the ready engine to the last committed result counts, which includes
its first, cold batch, its fsyncs and its journal. Only ratios within one run mean anything: these machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
STEPS = 8
SIZES = ("128x128", "192x128", "128x192", "160x160")


def uniform(count: int) -> list[dict]:
    return [{"prompt": f"a red circle number {i} on a blue background", "size": "128x128"} for i in range(count)]


def realistic(count: int) -> list[dict]:
    dice = random.Random(0)
    fresh = [
        f"a {dice.choice(['red', 'green', 'blue'])} house number {i} by the sea" for i in range(count - count // 3)
    ]
    prompts = fresh + [dice.choice(fresh) for _ in range(count // 3)]
    dice.shuffle(prompts)
    return [{"prompt": p, "size": dice.choice(SIZES), "n": dice.randint(1, 3)} for p in prompts]


def fastgen_run(rows: list[dict], out: Path) -> tuple[int, float, dict]:
    """(images, seconds, summary) of a complete run, including workers, journal and fsync."""
    from fastgen.resolver import resolve
    from fastgen.scheduler.run import Run

    run = Run(resolve("t2i", out=out, model="tiny", gpus="cpu", steps=STEPS), rows=rows)
    for _ in run.results():
        pass
    assert run.state == "finished" and not run.counts["failed"]
    return run.counts["images"], run.summary()["busy_seconds"], run.summary()


def measure(name: str, rows: list[dict], rounds: int) -> dict:
    from bench import loops
    from fastgen.resolver import resolve

    settings = resolve("t2i", model="tiny", gpus="cpu")
    pipeline = loops.load(settings.model.path, settings.placement.devices[0].threads)
    arms = {
        "(a) plain loop": lambda out: loops.plain(pipeline, rows, STEPS, out),
        "(b) embeddings first, saving thread": lambda out: loops.staged(pipeline, rows, STEPS, out),
    }
    rates: dict[str, list[float]] = {arm: [] for arm in (*arms, "fastgen")}
    summaries = []
    with tempfile.TemporaryDirectory() as scratch:
        for arm in arms.values():
            warm = Path(scratch, "warm")
            warm.mkdir(exist_ok=True)
            arm(warm) if len(rows) <= 32 else loops.plain(pipeline, rows[:16], STEPS, warm)
        for turn in range(rounds):
            for arm, go in arms.items():
                out = Path(scratch, f"{turn}-{arm[1]}")
                out.mkdir()
                started = time.monotonic()
                count = go(out)
                rates[arm].append(count / (time.monotonic() - started))
                shutil.rmtree(out)
            images, seconds, summary = fastgen_run(rows, Path(scratch, f"{turn}-fastgen"))
            assert images == count
            rates["fastgen"].append(images / seconds)
            summaries.append(summary)
    ratios = {arm: [ours / theirs for ours, theirs in zip(rates["fastgen"], rates[arm], strict=True)] for arm in arms}
    last = summaries[-1]
    return {
        "scenario": name,
        "rows": len(rows),
        "images": count,
        "rounds": rounds,
        "images_per_second": {arm: [round(x, 2) for x in values] for arm, values in rates.items()},
        "ratio_median": {arm: round(statistics.median(values), 3) for arm, values in ratios.items()},
        "ratio_min": {arm: round(min(values), 3) for arm, values in ratios.items()},
        "outside_transformer_and_vae": [s["outside_model"] for s in summaries],
        "stages_seconds": last["stages_seconds"],
        "busy_seconds": last["busy_seconds"],
    }


def markdown(results: list[dict], about: dict) -> str:
    lines = ["# fastgen against hand-written loops, embedded model", ""]
    lines += [f"{key}: {value}  " for key, value in about.items()]
    for r in results:
        lines += [
            "",
            f"## {r['scenario']}: {r['rows']} rows, {r['images']} images, {r['rounds']} rounds",
            "",
            "| | images/s, each round | fastgen is this many times faster: median (lowest) |",
            "|---|---|---|",
        ]
        for arm, values in r["images_per_second"].items():
            ratio = f"{r['ratio_median'][arm]} ({r['ratio_min'][arm]})" if arm in r["ratio_median"] else ""
            lines.append(f"| {arm} | {', '.join(map(str, values))} | {ratio} |")
        lines += [
            "",
            f"Time outside transformer and VAE, share of the run: {r['outside_transformer_and_vae']}.  ",
            f"Stages of the last round, seconds of {r['busy_seconds']} (save and load overlap with the rest): "
            + ", ".join(f"{k} {v}" for k, v in r["stages_seconds"].items())
            + ".",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    import diffusers
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=["uniform", "realistic", "both"], default="both")
    parser.add_argument("--rows", type=int, default=0, help="default: 192 uniform, 400 realistic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for throughput.json and throughput.md")
    args = parser.parse_args()
    wanted = ["uniform", "realistic"] if args.scenario == "both" else [args.scenario]
    makers = {"uniform": (uniform, 192), "realistic": (realistic, 400)}
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m bench.throughput " + " ".join(os.sys.argv[1:]),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "diffusers": diffusers.__version__,
        "weights": "embedded tiny model, trained on scenes of flat shapes",
        "dtype": "float32",
        "steps": STEPS,
    }
    results = []
    for name in wanted:
        make, count = makers[name]
        results.append(measure(name, make(args.rows or count), args.rounds))
        print(json.dumps(results[-1], indent=1), flush=True)
    text = markdown(results, about)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "throughput.json").write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")
        (args.out / "throughput.md").write_text(text)


if __name__ == "__main__":
    main()
