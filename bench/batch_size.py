"""Which batch size pays off for which image size on this machine: samples per second of the engine alone.

    python -m bench.batch_size [--sizes 128x128 256x256] [--batches 1 2 4 8 16] [--rounds N] [--out FOLDER]

The batch sizes are interleaved. Figures are medians and ratios to batch 1, since only ratios mean anything.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    from fastgen.backends.diffusion.backend import DiffusionBackend
    from fastgen.backends.diffusion.families.flux1.latents import make_noise
    from fastgen.backends.diffusion.family import Sample
    from fastgen.config.checks import parse_size
    from fastgen.resolver import resolve

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--gpus", default="cpu")
    parser.add_argument("--sizes", nargs="+", default=["128x128", "192x192", "256x256", "512x512"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for batch_size.md")
    args = parser.parse_args()
    settings = resolve("t2i", model=args.model, gpus=args.gpus, batch_size=1024)
    backend = DiffusionBackend(settings, settings.placement.devices[0])
    backend.open()
    lines = [
        "# Samples per second by batch size, and the ratio to batch 1",
        "",
        f"{time.strftime('%Y-%m-%d')}, model {args.model}, {settings.placement.devices[0].name}, "
        f"{settings.placement.devices[0].threads} "
        f"threads, {settings.engine.dtype}, {args.steps} steps, {args.rounds} interleaved rounds, median",
        "",
        "| size | " + " | ".join(f"batch {b}" for b in args.batches) + " |",
        "|---" * (len(args.batches) + 1) + "|",
    ]
    prompt = backend.prompts.encode(["a red circle on a blue background"])[0]
    for text in args.sizes:
        width, height = parse_size(text)
        rates: dict[int, list[float]] = {batch: [] for batch in args.batches}
        for turn in range(args.rounds + 1):
            for batch in args.batches:
                samples = [
                    Sample(prompt, width, height, args.steps, 3.5, make_noise(i, width, height)) for i in range(batch)
                ]
                started = time.monotonic()
                backend.pixels(samples)
                if turn:  # the first round warms up
                    rates[batch].append(batch / (time.monotonic() - started))
        middle = {batch: statistics.median(values) for batch, values in rates.items()}
        one = middle[args.batches[0]]
        lines.append(f"| {text} | " + " | ".join(f"{r:.2f} ({r / one:.2f})" for r in middle.values()) + " |")
        print(lines[-1], flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "batch_size.md").write_text("\n".join(lines) + "\n")
    backend.close()


if __name__ == "__main__":
    main()
