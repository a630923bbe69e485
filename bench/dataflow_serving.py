"""LocalImageGenServing against DataFlow-MM's own, as separate programs: images per second, and the total time of the
program.

    python -m bench.dataflow_serving [--theirs CHECKOUT] [--prompts N] [--calls N] [--rounds N] [--batch N]

one call       all prompts at once
several calls  the same number of prompts in --calls calls on one serving

as called      their class: one pipeline call per batch, one batch after the other, attention slicing, the pipeline's
               default of 512 text tokens, images saved one by one before the next batch
same text      the same, but told to read 64 tokens, as fastgen does with this model

Every figure comes from a separate program: it imports, makes the serving, lets it draw a first batch (after which both
have a loaded and warm model), and then makes the calls. "images/s" covers only the calls, including everything they do
besides drawing: in fastgen the run folder, the journal, its fsyncs and the tables. "whole" is the time from the start
of the program to its end, including loading and the first batch. Weights, size, steps, guidance and dtype (float32 on a
CPU) are the same. The baseline gets one thread or all, whichever is faster. The programs take turns; only ratios within
one run mean anything.

Without --theirs (a checkout of their repository) the baseline is a loop that does what their class does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SIDE, STEPS, GUIDANCE = 128, 8, 2.5
TOKENS = {"same text": 64, "as called": 0}
ARMS = ("fastgen", *TOKENS)


def serve(args: argparse.Namespace) -> None:
    """One program; prints the seconds of its calls."""
    out = Path(args.out)
    if args.arm == "fastgen":
        from fastgen.dataflow.io import ImageIO
        from fastgen.dataflow.serving.local_image_gen_serving import LocalImageGenServing

        serving = LocalImageGenServing(
            ImageIO(str(out)),
            "tiny",
            batch_size=args.batch,
            diffuser_image_height=SIDE,
            diffuser_image_width=SIDE,
            diffuser_num_inference_steps=STEPS,
            diffuser_guidance_scale=GUIDANCE,
            gpus="cpu",
            strict=True,
        )
    else:
        import torch

        from bench import dataflow_theirs
        from fastgen.config.model_cards import TINY

        torch.set_num_threads(args.threads)
        serving = dataflow_theirs.load(args.theirs, str(TINY), out, args.batch, SIDE, STEPS, GUIDANCE, TOKENS[args.arm])
    seconds = []
    for number, count in enumerate([args.batch, *[args.prompts // args.calls] * args.calls]):
        prompts = [f"a red circle number {i} of {number} on a blue background" for i in range(count)]
        began = time.monotonic()
        found = serving.generate_from_input(prompts)
        seconds.append(time.monotonic() - began)
        assert len(found) == count and all(os.path.getsize(path) for paths in found.values() for path in paths)
    print(json.dumps(seconds[1:]))


def program(args: argparse.Namespace, arm: str, calls: int, prompts: int, threads: int) -> tuple[float, float]:
    """Images per second in the calls, and the seconds of the whole program."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "bench.dataflow_serving", "--arm", arm, "--out", out, "--calls", str(calls)]
        command += [
            "--prompts",
            str(prompts),
            "--batch",
            str(args.batch),
            "--threads",
            str(threads),
            "--theirs",
            args.theirs,
        ]
        began = time.monotonic()
        said = subprocess.run(command, capture_output=True, text=True)
        whole = time.monotonic() - began
        if said.returncode:
            raise SystemExit(f"{arm}: {said.stderr[-3000:]}")
    seconds = json.loads(said.stdout.splitlines()[-1])
    return prompts / sum(seconds), whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--theirs", default="", metavar="CHECKOUT", help="their repository; without it, a loop that does the same"
    )
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    for inner in ("--arm", "--out"):
        parser.add_argument(inner, default="", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.theirs = args.theirs and os.path.abspath(args.theirs)
    if args.arm:
        serve(args)
        return
    print(f"baseline: {'their own class' if args.theirs else 'a loop that does what their class does'}", flush=True)
    cores = os.cpu_count() or 1
    threads = {arm: max((1, cores), key=lambda n: program(args, arm, 1, 2 * args.batch, n)[0]) for arm in TOKENS}
    print(f"threads of the baseline: {threads}", flush=True)
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    shapes = {"one call": 1, "several calls": args.calls}
    for number in range(args.rounds):
        for shape, calls in shapes.items():
            for arm in ARMS:
                found.setdefault((arm, calls), []).append(program(args, arm, calls, args.prompts, threads.get(arm, 1)))
            said = ", ".join(
                f"{arm} {found[arm, calls][-1][0]:.2f}/s whole {found[arm, calls][-1][1]:.1f} s" for arm in ARMS
            )
            print(f"round {number + 1}, {shape}: {said}", flush=True)
    for shape, calls in shapes.items():
        for arm in TOKENS:
            pairs = list(zip(found["fastgen", calls], found[arm, calls], strict=True))
            rates, wholes = [a[0] / b[0] for a, b in pairs], [b[1] / a[1] for a, b in pairs]
            print(
                f"{shape}, LocalImageGenServing / {arm}: images/s {_ratio(rates)}, the whole program {_ratio(wholes)}"
            )


def _ratio(found: list[float]) -> str:
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


if __name__ == "__main__":
    main()
