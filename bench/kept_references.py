"""What keeping the keys and values of references saves in edits: the same transformer, with and without.

    python -m bench.kept_references [--side 256] [--references 1,3] [--steps 4] [--batch 4] [--rounds 5]

A tiny FLUX.2 klein with random weights, as `Flux2KleinPipeline` and as `Flux2KleinKVPipeline`, on the CPU in one
thread; denoising only. Image and references are squares of that many pixels. The arms take turns in each round. Prints
the processor time relative to the first one (median of the rounds, and the least and most), and the tokens that go
through the blocks.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgen.backends.diffusion.family import Family, Sample

os.environ.setdefault("HF_HUB_OFFLINE", "1")
WIDE = {
    "num_layers": 3,
    "num_single_layers": 6,
    "attention_head_dim": 32,
    "num_attention_heads": 8,
    "axes_dims_rope": (8, 8, 8, 8),
}
"""Of the transformer. Wider than in the tests, so that arithmetic takes the time."""
TEXT = 128
"""Tokens of a prompt."""


def opened(folder: Path, kept: bool) -> Family:
    import torch

    from fastgen.backends.diffusion.families import load
    from fastgen.resolver import resolve
    from tests.backends.diffusion.families import tiny

    tiny.TRANSFORMERS["flux2"] = (tiny.TRANSFORMERS["flux2"][0], tiny.TRANSFORMERS["flux2"][1] | WIDE)
    model = folder / ("kept" if kept else "plain")
    tiny.flux2_kept(model) if kept else tiny.flux2(model, distilled=True)
    settings = resolve("edit", out=folder / "out", model=str(model), gpus="cpu", max_sequence_length=TEXT)
    return load(settings, torch.device("cpu"))


def samples(family: Family, asked: argparse.Namespace, references: int) -> list[Sample]:
    import torch

    from fastgen.backends.diffusion.family import Sample

    prompt = family.encode_prompts(["make the circle blue"])[0]
    size = (asked.side, asked.side)
    made = []
    for number in range(asked.batch):
        one = Sample(prompt, *size, asked.steps, 1.0, family.noise(number, *size))
        one.reference = torch.cat([family.noise(100 + number + at, *size) for at in range(references)])
        one.reference_sizes = (size,) * references
        made.append(one)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"side": 256, "steps": 4, "batch": 4, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--references", default="1,3")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arms = {"plain": opened(Path(folder), kept=False), "kept": opened(Path(folder), kept=True)}
    for references in map(int, asked.references.split(",")):
        measure(arms, asked, references)


def measure(arms: dict[str, Family], asked: argparse.Namespace, references: int) -> None:
    import torch

    from fastgen.backends.diffusion.step_engine import denoise

    torch.set_num_threads(1)
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(asked.rounds + 1):  # the first one warms up
        for name in list(arms)[:: 1 if number % 2 else -1]:
            made = samples(arms[name], asked, references)
            began = time.process_time()
            denoise(arms[name], made, asked.batch)
            times[name] += [time.process_time() - began] if number else []
    image = (asked.side // 16) ** 2
    own, read = TEXT + image, references * image
    tokens = {"plain": asked.steps * (own + read), "kept": asked.steps * own + read + 1}
    for name in arms:
        ratios = [one / plain for one, plain in zip(times[name], times["plain"], strict=True)]
        print(
            f"{references} references, {name:5}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to "
            f"{max(ratios):.3f}) of the time, {tokens[name]} tokens through the blocks for an image"
        )


if __name__ == "__main__":
    main()
