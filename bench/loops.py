"""The two loops that people write by hand over diffusers, as fair baselines for the benchmarks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

BATCH = 4


def load(folder: str, threads: int):
    import torch
    from diffusers import FluxPipeline
    from diffusers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    pipeline = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def batches(rows: Iterable[dict]) -> Iterator[list[tuple[str, int, int, int]]]:
    """Samples (prompt, width, height, seed) in input order, up to BATCH of one size together."""
    batch: list[tuple[str, int, int, int]] = []
    for number, row in enumerate(rows):
        width, height = map(int, row["size"].split("x"))
        for copy in range(row.get("n", 1)):
            if batch and (len(batch) == BATCH or batch[-1][1:3] != (width, height)):
                yield batch
                batch = []
            batch.append((row["prompt"], width, height, 1000 * number + copy))
    if batch:
        yield batch


def settings(batch, steps: int) -> dict:
    import torch

    return {
        "width": batch[0][1],
        "height": batch[0][2],
        "num_inference_steps": steps,
        "max_sequence_length": 64,
        "guidance_scale": 3.5,
        "generator": [torch.Generator("cpu").manual_seed(seed) for *_, seed in batch],
    }


def plain(pipeline, rows: list[dict], steps: int, out: Path) -> int:
    """(a) One call per batch, images saved as they come."""
    count = 0
    for batch in batches(rows):
        for image in pipeline([prompt for prompt, *_ in batch], **settings(batch, steps)).images:
            image.save(out / f"{count}.png")
            count += 1
    return count


def staged(pipeline, rows: list[dict], steps: int, out: Path) -> int:
    """(b) Every distinct prompt encoded first, images saved by a thread."""
    import torch

    known: dict[str, tuple] = {}
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    with torch.no_grad():
        for start in range(0, len(prompts), 16):
            chunk = prompts[start : start + 16]
            embeds, pooled, _ = pipeline.encode_prompt(chunk, max_sequence_length=64)
            known.update(zip(chunk, zip(embeds, pooled, strict=True), strict=True))
    work: queue.Queue = queue.Queue(maxsize=16)

    def save() -> None:
        while (item := work.get()) is not None:
            image, path = item
            image.save(path)

    saver = threading.Thread(target=save)
    saver.start()
    count = 0
    for batch in batches(rows):
        embeds = torch.stack([known[prompt][0] for prompt, *_ in batch])
        pooled = torch.stack([known[prompt][1] for prompt, *_ in batch])
        images = pipeline(prompt_embeds=embeds, pooled_prompt_embeds=pooled, **settings(batch, steps)).images
        for image in images:
            work.put((image, out / f"{count}.png"))
            count += 1
    work.put(None)
    saver.join()
    return count
