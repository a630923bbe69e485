"""What it is worth that samples join a running group: the same samples in batches without joins, and through the step
engine.

    python -m bench.joins [--samples 64] [--batch 8] [--size 64x64] [--rounds 7] [--threads 1]

The embedded model on the CPU, with steps from 4 to 50. Arms:

joins     the step engine as a worker uses it: the rows with the most steps first, three batches held at a time
sorted    batches of rows with similar steps, each by itself
arrival   batches in an order by chance, as rows come without a scheduler, each by itself

All arms run in one thread and one process, in slices of some passes, and the one that is furthest behind goes on. So
whatever disturbs the machine meets all of them alike. Prints the mean number of samples per forward pass
(`mean_group`), the time of each arm relative to `joins` (median of the rounds, and the middle half of them), and two
calculations from the sizes of the passes: with the median cost that passes of each size had in this run, and with the
published cost of passes on a GPU for images of 512x512 (1.8 times the rate of one sample with 2, 3.2 times with 16).
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgen.backends.diffusion.family import Family, Sample

os.environ.setdefault("HF_HUB_OFFLINE", "1")
FEWEST, LARGEST = 4, 50
"""Steps."""
HELD = 3
"""Batches that a worker holds (`backends.registry.slots`)."""
SLICE = 64
"""Steps of samples after which another arm goes on."""
GPU_512 = ((1, 1.0), (2, 2 / 1.8), (16, 16 / 3.2))
"""Samples and time of a pass, relative to a pass of one."""
ARMS = ("joins", "sorted", "arrival")


def passes(family: Family, batches: list[list[Sample]], held: int, most: int) -> Iterator[int]:
    """Take all samples through the engine, at most so many batches at a time; yields the size of each pass."""
    from fastgen.backends.diffusion.memory import Room
    from fastgen.backends.diffusion.step_engine import StepEngine

    engine = StepEngine(family, Room(family, lambda pixels: most))
    left, under_way = list(batches), []
    while left or engine.has_work():
        under_way = [futures for futures in under_way if not all(future.done() for future in futures)]
        while left and len(under_way) < held:
            under_way.append(engine.submit_all(left.pop(0)))
        engine.step()
        yield engine.take_counts().pass_samples


@dataclass
class Round:
    """An arm in a round."""

    passes: Iterator[int]
    sizes: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Seconds of each pass."""
    wall: float = 0.0
    is_over: bool = False

    def go_on(self, count: int) -> None:
        """Some passes, with so many steps of samples in all."""
        target = sum(self.sizes) + count
        while sum(self.sizes) < target and not self.is_over:
            used, started = time.process_time(), time.monotonic()
            size = next(self.passes, 0)
            self.is_over = not size
            if size:
                self.sizes.append(size)
                self.cpu.append(time.process_time() - used)
                self.wall += time.monotonic() - started


def play(rounds: dict[str, Round]) -> None:
    """All arms side by side."""
    while left := [one for one in rounds.values() if not one.is_over]:
        min(left, key=lambda one: sum(one.sizes)).go_on(SLICE)


def published(size: int) -> float:
    """Relative time of a pass on a GPU, on a straight line between the published ones."""
    (low, before), (high, after) = GPU_512[:2] if size <= 2 else GPU_512[1:]
    return before + (after - before) * (size - low) / (high - low)


def spread(values: list[float]) -> str:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return f"{statistics.median(values):.3f} ({low:.3f} to {high:.3f})"


def show(all_rounds: list[dict[str, Round]]) -> None:
    costs: dict[int, list[float]] = defaultdict(list)
    for rounds in all_rounds:
        for one in rounds.values():
            for size, seconds in zip(one.sizes, one.cpu, strict=True):
                costs[size].append(seconds)
    typical = {size: statistics.median(seconds) for size, seconds in costs.items()}
    cost_of: tuple[Callable[[int], float], ...] = (typical.__getitem__, published)
    print("| arm | mean_group | passes | CPU s | CPU / joins | wall / joins | by cost of passes | by that of a GPU |")
    print("|---|---|---|---|---|---|---|---|")
    for name in ARMS:
        own, base = [rounds[name] for rounds in all_rounds], [rounds["joins"] for rounds in all_rounds]
        cpu = [sum(a.cpu) / sum(b.cpu) for a, b in zip(own, base, strict=True)]
        wall = [a.wall / b.wall for a, b in zip(own, base, strict=True)]
        sizes = own[0].sizes
        calculated = [sum(map(cost, sizes)) / sum(map(cost, base[0].sizes)) for cost in cost_of]
        cells = [f"{sum(sizes) / len(sizes):.2f}", len(sizes), f"{statistics.median(sum(a.cpu) for a in own):.2f}"]
        cells += [spread(cpu), spread(wall), *(f"{value:.3f}" for value in calculated)]
        print(f"| {name} | {' | '.join(map(str, cells))} |")
    print("ms per pass: " + ", ".join(f"{size}: {1000 * seconds:.1f}" for size, seconds in sorted(typical.items())))


def main() -> None:
    import torch

    from fastgen import opt
    from fastgen.backends.diffusion.decode import decode
    from fastgen.backends.diffusion.families import load
    from fastgen.backends.diffusion.family import Sample
    from fastgen.backends.diffusion.heap import keep_freed_memory
    from fastgen.backends.diffusion.prompts import PromptEncoder
    from fastgen.config.checks import parse_size
    from fastgen.resolver import resolve

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", default="64x64")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, for all arms")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    settings = resolve("t2i", model="tiny", gpus="cpu")
    family: Family = load(settings, torch.device("cpu"))
    opt.apply_all(family.modules, settings.optimizations)
    prompt = PromptEncoder(family).encode(["a red circle on a blue background"])[0]
    size = parse_size(args.size)
    steps = [LARGEST - round((LARGEST - FEWEST) * i / (args.samples - 1)) for i in range(args.samples)]
    chance = random.Random(0).sample(range(args.samples), args.samples)

    def start(name: str) -> tuple[Round, list[Sample]]:
        made = [Sample(prompt, *size, n, 3.5, family.noise(i, *size)) for i, n in enumerate(steps)]
        order = [made[i] for i in chance] if name == "arrival" else made
        batches = [order[at : at + args.batch] for at in range(0, len(order), args.batch)]
        return Round(passes(family, batches, HELD if name == "joins" else 1, args.batch)), made

    def pictures(made: list[Sample]) -> torch.Tensor:
        found = decode(family, [s.latents for s in made if s.latents is not None], *size, args.batch)
        return torch.stack([torch.as_tensor(one.wait()) for one in found])

    print(
        f"{args.samples} samples of {args.size}, batch {args.batch}, threads {args.threads}, {args.rounds} rounds, ",
        end="",
    )
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    all_rounds = []
    for turn in range(args.rounds + 1):
        names = random.Random(turn).sample(ARMS, len(ARMS))
        begun = {name: start(name) for name in names}
        play({name: one for name, (one, _) in begun.items()})
        if turn:  # the first round warms up
            all_rounds.append({name: one for name, (one, _) in begun.items()})
    show(all_rounds)
    want = pictures(begun["joins"][1])
    off = max(float((pictures(begun[name][1]) - want).abs().max()) * 255 for name in ARMS)
    print(f"images differ by {off:.2f} of 255 at most; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
