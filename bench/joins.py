"""What it is worth that samples join a running group: the same samples in batches without joins, sorted by their steps,
and through the step engine, taking turns.

    python -m bench.joins [--samples 64] [--batch 8] [--size 64x64] [--rounds 5]

The embedded model on one thread, with steps from 4 to 50. Prints the mean number of samples per forward pass
(`mean_group`), the ratio of CPU seconds in each round, and how far apart the images of both are, of 255.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
FEWEST, LARGEST = 4, 50
"""Steps."""
HELD = 3
"""Batches that a worker holds (`backends.registry.slots`)."""


def main() -> None:
    import torch

    from fastgen import opt
    from fastgen.backends.diffusion.decode import decode
    from fastgen.backends.diffusion.families import load
    from fastgen.backends.diffusion.family import Family, Sample
    from fastgen.backends.diffusion.memory import Room
    from fastgen.backends.diffusion.prompts import PromptEncoder
    from fastgen.backends.diffusion.step_engine import StepEngine, denoise
    from fastgen.config.checks import parse_size
    from fastgen.resolver import resolve

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", default="64x64")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = resolve("t2i", model="tiny", gpus="cpu")
    family: Family = load(settings, torch.device("cpu"))
    opt.apply_all(family.modules, settings.optimizations)
    prompt = PromptEncoder(family).encode(["a red circle on a blue background"])[0]
    size = parse_size(args.size)
    steps = [FEWEST + round((LARGEST - FEWEST) * i / (args.samples - 1)) for i in range(args.samples)]

    def samples() -> list[Sample]:
        return [Sample(prompt, *size, n, 3.5, family.noise(i, *size)) for i, n in enumerate(steps)]

    def without(made: list[Sample]) -> float:
        """Returns mean_group."""
        batches = [made[at : at + args.batch] for at in range(0, len(made), args.batch)]
        for batch in batches:
            denoise(family, batch, args.batch)
        return sum(steps) / sum(max(sample.steps for sample in batch) for batch in batches)

    def joining(made: list[Sample]) -> float:
        """Returns mean_group. Batches come as a worker gets them: the longest first, three at a time."""
        engine = StepEngine(family, Room(family, lambda pixels: args.batch))
        left = [made[::-1][at : at + args.batch] for at in range(0, len(made), args.batch)]
        held: list[list] = []
        while left or engine.has_work():
            held = [futures for futures in held if not all(future.done() for future in futures)]
            while left and len(held) < HELD:
                held.append(engine.submit_all(left.pop(0)))
            engine.step()
        counts = engine.take_counts()
        return counts.pass_samples / counts.passes

    def pictures(made: list[Sample]) -> torch.Tensor:
        found = decode(family, [s.latents for s in made if s.latents is not None], *size, args.batch)
        return torch.stack([torch.as_tensor(one.wait()) for one in found])

    arms = {"without joins": without, "with joins": joining}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    groups: dict[str, float] = {}
    made: dict[str, list[Sample]] = {}
    for turn in range(args.rounds + 1):
        for name in sorted(arms, reverse=bool(turn % 2)):
            made[name] = samples()
            started = time.thread_time()
            groups[name] = arms[name](made[name])
            if turn:  # the first round warms up
                seconds[name].append(time.thread_time() - started)
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    off = (pictures(made["without joins"]) - pictures(made["with joins"])).abs().max() * 255
    for name, group in groups.items():
        print(f"{name}: mean_group {group:.2f}, {statistics.median(seconds[name]):.2f} s of CPU")
    print(f"without / with: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(f"images differ by {off:.2f} of 255 at most")


if __name__ == "__main__":
    main()
