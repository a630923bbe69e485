"""What optimizations cost in quality and what they save: prompt following on the embedded FLUX, and the distance to its
images without them.

    python -m bench.losses [--task t2i|edit] [--steps N] [--count N] [--out FOLDER] OPTION=WORD[+OPTION=WORD] ...

such as `cache=taylorseer:0.2 quantize=8bit cache=first-block:0.4+fuse_qkv=true`; the names are those of
`optimizations.Options`. Prompts come from seeds that training never uses; the scene reader judges. PSNR is computed
from the mean squared error over all images, so one image that turned out differently dominates it. Seconds are for one
thread on this machine, one run each.

`times fewer blocks` counts evaluations of a block by the tokens that go through it, those of the text included, so it
is what most of the work is proportional to; `by the image` counts them by the image's tokens alone. The two differ only
with `progressive`, where the image is smaller for some steps and the text is not.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
BATCH = 10


def scenes(task: str, count: int, seed: int):
    """Batches of (canvas, prompts, images to edit or None, wishes)."""
    from fastgen.embedded.scenes import CANVASES, as_wish, describe, draw, parse, random_edit, random_scene

    for number in range(-(-count // BATCH)):
        canvas = CANVASES[number % len(CANVASES)]
        dice = random.Random(f"{seed}-{task}-{number}")
        if task == "t2i":
            prompts = [describe(random_scene(dice, canvas, 1 + number % 2), dice).text for _ in range(BATCH)]
            yield canvas, prompts, None, [parse(prompt) for prompt in prompts]
            continue
        edits = []
        while len(edits) < BATCH:
            scene = random_scene(dice, canvas)
            try:
                _, text, after = random_edit(scene, dice)
            except ValueError:  # no room for it, or nothing to apply it to
                continue
            edits.append((draw(scene), text.text, as_wish(after)))
        pictures, prompts, wishes = zip(*edits, strict=True)
        yield canvas, list(prompts), list(pictures), list(wishes)


class Trial:
    """Runs the embedded model with some optimizations over a list of batches."""

    def __init__(self, text: str, dtype: str):
        import torch

        from fastgen import opt
        from fastgen.backends.diffusion.families import load
        from fastgen.backends.diffusion.prompts import PromptEncoder
        from fastgen.config import optimizations
        from fastgen.resolver import resolve

        words = dict(part.split("=", 1) for part in text.split("+")) if text != "plain" else {}
        options = {name: {"true": True, "false": False}.get(word, word) for name, word in words.items()}
        settings = resolve("t2i", model="tiny", gpus="cpu", dtype=dtype)
        chosen = optimizations.resolve("", optimizations.Sets(exact=optimizations.Options(**options)), "", {})
        if reason := opt.refuse(chosen, None):
            raise SystemExit(f"{text}: {reason}")
        self.name = text
        self.family = load(settings, torch.device("cpu"))
        self.modules = self.family.modules
        self.facts = opt.apply_all(self.modules, chosen)
        self.encoder = PromptEncoder(self.family)
        self.blocks = self.modules.transformer.config.num_layers + self.modules.transformer.config.num_single_layers

    def run(self, batches, steps: int, reference: list | None) -> tuple[list, str]:
        """The images and a row of the table."""
        import numpy as np

        from fastgen.backends.diffusion.decode import decode, to_uint8
        from fastgen.backends.diffusion.families.flux1.latents import make_noise
        from fastgen.backends.diffusion.family import Sample
        from fastgen.backends.diffusion.step_engine import denoise
        from fastgen.embedded.scenes import match, read

        pictures, patterns, right, seconds = [], Counter(), 0, 0.0
        fewer = {True: [0.0, 0.0], False: [0.0, 0.0]}  # with text: evaluated, of
        for number, (canvas, prompts, before, wishes) in enumerate(batches):
            started = time.monotonic()
            samples = [
                Sample(prompt, *canvas, steps, 3.5, make_noise(number * BATCH + i, *canvas))
                for i, prompt in enumerate(self.encoder.encode(prompts))
            ]
            if before is not None:
                for sample, latents in zip(samples, self.family.encode_pictures(before), strict=True):
                    sample.reference, sample.reference_sizes = latents, (canvas,)
            denoise(self.family, samples, BATCH)
            decoded = decode(self.family, [s.latents for s in samples], *canvas, BATCH, to_uint8)
            made = [picture.wait() for picture in decoded]
            seconds += time.monotonic() - started
            patterns.update(sample.pattern or "1" * steps for sample in samples)
            for with_text, sums in fewer.items():
                found = [self._evaluated(sample, steps, with_text) for sample in samples]
                sums[:] = (total + sum(part) for total, part in zip(sums, zip(*found, strict=True), strict=True))
            right += sum(match(wish, read(picture)).all for wish, picture in zip(wishes, made, strict=True))
            pictures += made
        times = " | ".join(f"{full / evaluated:.2f}" for evaluated, full in fewer.values())
        errors = [((a.astype(float) - b) ** 2).mean() for a, b in zip(pictures, reference or pictures, strict=True)]
        psnr = 10 * math.log10(255**2 / np.mean(errors)) if any(errors) else math.inf
        near = np.mean([e < 255**2 / 10**3 for e in errors])  # above 30 dB
        common = patterns.most_common(1)[0][0] if "0" in "".join(patterns) else ""
        row = (
            f"| {self.name} | {right} of {len(pictures)} ({right / len(pictures):.1%}) | {times} | {psnr:.1f} | "
            f"{near:.0%} | {seconds:.0f} | {common} |"
        )
        return pictures, row

    def _evaluated(self, sample, steps: int, with_text: bool) -> tuple[float, float]:
        """Tokens that went through a block, summed over the blocks evaluated, and over all blocks of all steps."""
        pattern, small = sample.pattern or "1" * steps, sample.begun.small if sample.begun else None
        others = sum(width * height for width, height in sample.reference_sizes) // 16**2
        others += sample.prompt.embeds.shape[0] if with_text else 0
        image = sample.noise.shape[0]
        first, share = (small.steps, small.share) if small else (0, 1.0)
        costs = [self.blocks if step == "1" else 1 for step in pattern]
        evaluated = sum(costs[:first]) * (image * share + others) + sum(costs[first:]) * (image + others)
        return evaluated, self.blocks * steps * (image + others)


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="+")
    parser.add_argument("--task", choices=["t2i", "edit"], default="t2i")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, help="folder for losses.md, to which the table is added")
    args = parser.parse_args()
    torch.set_num_threads(1)
    batches = list(scenes(args.task, args.count, args.seed))
    lines = [
        "",
        f"{time.strftime('%Y-%m-%d')}: {args.task}, {args.steps} steps, {args.count} prompts, {args.dtype}, one "
        f"thread of {os.cpu_count()} CPU cores",
        "",
        "| | right | times fewer blocks | by the image | PSNR | above 30 dB | s | most common steps |",
        "|---" * 8 + "|",
    ]
    print("\n".join(lines[1:]), flush=True)
    reference = None
    for text in ("plain", *args.options):
        pictures, row = Trial(text, args.dtype).run(batches, args.steps, reference)
        reference = reference or pictures
        lines.append(row)
        print(row, flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / "losses.md"
        head = "" if path.exists() else "# What optimizations cost in quality, on the embedded FLUX\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
