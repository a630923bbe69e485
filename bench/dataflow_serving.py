"""LocalImageGenServing against the way DataFlow-MM's own serving works, on the embedded model: images a second, interleaved.

    python -m bench.dataflow_serving [--prompts N] [--rounds N] [--batch N]

same text    one diffusers FluxPipeline, attention slicing on, a call a batch of 4, each batch's pictures saved one after the
             other before the next call; texts of 64 tokens, as fastgen reads them with this model
as called    the same with the pipeline's default of 512 tokens, which is what that serving's calls come to

Same weights, size, steps, guidance and dtype (float32: on a CPU half precision helps neither). Loading is not counted:
of the loops the time in calls counts after a first batch; of fastgen that from its engine being ready to the last committed
result, so its cold first batch, its fsyncs and its journal are in. The loops get the number of threads, one or all, with
which they are the faster (on a busy machine all of them wait for each other). Only ratios within one run mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SIDE, STEPS, GUIDANCE = 128, 8, 2.5
TEXTS = {"same text": 64, "as called": 512}


def serving_run(prompts: list[str], batch: int, out: Path) -> float:
    """Images a second of LocalImageGenServing, from its run's own report."""
    from fastgen.dataflow.io import ImageIO
    from fastgen.dataflow.serving.local_image_gen_serving import LocalImageGenServing

    serving = LocalImageGenServing(
        ImageIO(str(out)), "tiny", batch_size=batch, diffuser_image_height=SIDE, diffuser_image_width=SIDE,
        diffuser_num_inference_steps=STEPS, diffuser_guidance_scale=GUIDANCE, gpus="cpu", strict=True,
    )  # fmt: skip
    found = serving.generate_from_input(prompts)
    assert all(os.path.exists(path) for paths in found.values() for path in paths) and len(found) == len(prompts)
    [report] = out.glob(".fastgen/*/run.json")
    return json.loads(report.read_text())["images_per_second"]


def load():
    from bench import loops
    from fastgen.models import TINY

    pipeline = loops.load(str(TINY), os.cpu_count() or 1)
    pipeline.enable_attention_slicing()
    return pipeline


def loop_run(pipeline, prompts: list[str], batch: int, out: Path, tokens: int, threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    started = time.monotonic()
    count = 0
    for begin in range(0, len(prompts), batch):
        images = pipeline(
            prompts[begin : begin + batch], height=SIDE, width=SIDE, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
            num_images_per_prompt=1, max_sequence_length=tokens,
        ).images  # fmt: skip
        for image in images:
            image.save(out / f"{count}.png")
            count += 1
    return count / (time.monotonic() - started)


def best_threads(pipeline, prompts: list[str], batch: int, out: Path, tokens: int) -> int:
    loop_run(pipeline, prompts[:batch], batch, out, tokens, 1)
    return max((1, os.cpu_count() or 1), key=lambda threads: loop_run(pipeline, prompts[:batch], batch, out, tokens, threads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    prompts = [f"a red circle number {i} on a blue background" for i in range(args.prompts)]
    pipeline = load()
    rates: dict[str, list[float]] = {"fastgen": [], **{name: [] for name in TEXTS}}
    with tempfile.TemporaryDirectory() as folder:
        threads = {name: best_threads(pipeline, prompts, args.batch, Path(folder), tokens) for name, tokens in TEXTS.items()}
        print(f"threads of the loops: {threads}", flush=True)
        for number in range(args.rounds):
            rates["fastgen"].append(serving_run(prompts, args.batch, Path(folder, f"{number}")))
            for name, tokens in TEXTS.items():
                rates[name].append(loop_run(pipeline, prompts, args.batch, Path(folder), tokens, threads[name]))
            print(f"round {number + 1}: " + ", ".join(f"{name} {found[-1]:.2f}/s" for name, found in rates.items()), flush=True)
    for name in TEXTS:
        ratios = [ours / theirs for ours, theirs in zip(rates["fastgen"], rates[name], strict=True)]
        print(f"LocalImageGenServing / {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
