"""What images of different sizes in one run cost: the same samples mixed, as rows come, and apart by size.

    python -m bench.mixed_sizes [--each 16] [--batch 8] [--steps 4] [--rounds 5] [--model flux|z-image]

Squares from 64 to 256 pixels on the CPU, in one thread; denoising only. `flux` is the embedded model, `z-image` a tiny
one with random weights, whose small images of different sizes can share a forward pass. Arms:

uniform   each size by itself, one after the other: full batches of one size
mixed     all sizes in an order by chance, through the scheduler's window into the step engine, as in a run
filled    z-image only: batches by chance of the sizes that can share a pass, filled up to the largest

All arms have the same samples, so the same number of tokens. They take turns in each round. Prints the processor time
of each relative to `uniform` (median of the rounds, and the least and most), and the mean number of samples per pass.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgen.backends.diffusion.family import Family, Sample

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SIDES = (64, 96, 128, 160, 192, 224, 256)
HELD = 3
"""Batches that a worker holds (`backends.registry.slots`)."""


def run(family: Family, batches: list[list[Sample]], most: int) -> tuple[float, float]:
    """Seconds of processor time, and samples per pass."""
    from fastgen.backends.diffusion.memory import Room
    from fastgen.backends.diffusion.step_engine import StepEngine

    engine = StepEngine(family, Room(family, lambda pixels: most))
    left, under_way, passes, samples = list(batches), [], 0, 0
    began = time.process_time()
    while left or engine.has_work():
        under_way = [futures for futures in under_way if not all(future.done() for future in futures)]
        while left and len(under_way) < HELD:
            under_way.append(engine.submit_all(left.pop(0)))
        engine.step()
        counts = engine.take_counts()
        passes, samples = passes + counts.passes, samples + counts.pass_samples
    return time.process_time() - began, samples / passes


def windowed(order: list[tuple[int, int]], batch: int) -> list[list[tuple[int, int]]]:
    """Batches of (side, number) as the scheduler's window makes them of rows in this order."""
    from fastgen.scheduler.batching import Window
    from fastgen.types import ImageParams, Request

    window, found = Window(lambda pixels: batch), []
    for side, number in order:
        params = ImageParams(side, side, 4, 1.0, number, 1)
        window.add(Request(f"{side} {number}", "t2i", ("x",), params, (side, side)))
    while drawn := window.draw(ended=True):
        found.append([(int(one.id.split()[0]), int(one.id.split()[1])) for one in drawn.requests])
    return found


def opened(model: str, folder: Path) -> Family:
    from fastgen.backends.diffusion.families import load
    from fastgen.resolver import resolve

    name = "tiny"
    if model == "z-image":
        from tests.backends.diffusion.families import tiny

        tiny.z_image(folder / "model")
        name = str(folder / "model")
    import torch

    return load(resolve("t2i", out=folder / "out", model=name, gpus="cpu"), torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"each": 16, "batch": 8, "steps": 4, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", choices=("flux", "z-image"), default="flux")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(opened(asked.model, Path(folder)), asked)


def measure(family: Family, asked: argparse.Namespace) -> None:
    import torch

    from fastgen.backends.diffusion.family import Sample

    torch.set_num_threads(1)
    prompt = family.encode_prompts(["a red circle on a blue background"])[0]
    key = type(family).key

    def made(batches: list[list[tuple[int, int]]]) -> list[list[Sample]]:
        return [
            [Sample(prompt, side, side, asked.steps, 0.0, family.noise(number, side, side)) for side, number in batch]
            for batch in batches
        ]

    order = [(side, number) for side in SIDES for number in range(asked.each)]
    random.Random(0).shuffle(order)
    by_size = [[one for one in order if one[0] == side] for side in SIDES]
    apart = [own[at : at + asked.batch] for own in by_size for at in range(0, len(own), asked.batch)]
    doubled = [[one for one in order if ((one[0] // 16) ** 2 - 1).bit_length() == bits] for bits in range(4, 9)]
    shared = [own[at : at + asked.batch] for own in doubled for at in range(0, len(own), asked.batch)]
    arms: dict[str, tuple[list[list[tuple[int, int]]], Callable]] = {
        "uniform": (apart, lambda self, one: (one.width, one.height)),
        "mixed": (windowed(order, asked.batch), key),
    }
    if asked.model == "z-image":
        arms["filled"] = shared, key
    times: dict[str, list[float]] = {name: [] for name in arms}
    sizes: dict[str, float] = {}
    for number in range(asked.rounds + 1):  # the first one warms up
        names = list(arms)[:: 1 if number % 2 else -1]
        for name in names:
            batches, type(family).key = arms[name]
            seconds, sizes[name] = run(family, made(batches), asked.batch)
            times[name] += [seconds] if number else []
    tokens = sum((side // 16) ** 2 for side, _ in order) * asked.steps
    for name in arms:
        ratios = [own / base for own, base in zip(times[name], times["uniform"], strict=True)]
        print(
            f"{name:8} {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) of uniform, "
            f"{tokens / statistics.median(times[name]):,.0f} tokens per second, {sizes[name]:.2f} samples per pass"
        )


if __name__ == "__main__":
    main()
