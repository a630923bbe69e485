"""What users write by hand today, as fair baselines: diffusers' pipelines and transformers' generate, unchanged, in
batches.

They have the same weights, type, steps, guidance, size, text length and noise as fastgen, the profile's batch size, and
on a CPU the number of threads with which they are faster. Images are saved as they come. What they leave out (retries,
journal, several GPUs) costs them nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgen.bench.rounds import Play, Round
from fastgen.config.families import FLUX1
from fastgen.config.settings import Settings

if TYPE_CHECKING:
    import torch

CAPTIONS_AT_ONCE = (8, 32)
"""The faster of these is used."""
SPARE = 1.15
"""If the memory of a GPU is less than this many times the weights, diffusers' own offloading is used."""


def diffusers(settings: Settings) -> Play:
    """`FluxPipeline` or `FluxKontextPipeline`."""
    import torch

    from fastgen.backends.diffusion.families.flux1.load import load

    device = torch.device("cuda" if settings.placement.devices[0].kind == "cuda" else "cpu")
    torch.set_num_threads(settings.placement.devices[0].threads)
    pipeline = _pipeline(load(settings, device), settings.task)
    offloaded = _put(pipeline, settings, device)
    pipeline.set_progress_bar_config(disable=True)

    def call(rows: list[dict]) -> list:
        return pipeline(**_asked(settings, rows)).images

    chosen = device.type == "cuda"

    def play(rows: list[dict], out: Path) -> Round:
        nonlocal chosen
        if not chosen and len(rows) > 1:
            batch = rows[: settings.batch_for(_pixels(rows))]
            chosen = choose_threads(settings.placement.devices[0].threads, lambda: call(batch))
        found = Round()
        stages: defaultdict[str, float] = defaultdict(float)
        started = time.monotonic()
        for batch in _batches(rows, settings.batch_for(_pixels(rows))):
            before = time.monotonic()
            images = call(batch)
            stages["pipeline"] += time.monotonic() - before
            before = time.monotonic()
            for row, image in zip(batch, images, strict=True):
                path = out / f"{row['id']}.png"
                image.save(path)
                found.made[row["id"]] = str(path)
            stages["save"] += time.monotonic() - before
        found.seconds, found.stages = time.monotonic() - started, dict(stages)
        found.facts = {"threads": torch.get_num_threads(), "offload": offloaded}
        if device.type == "cuda":
            found.gpu_peak_gib = torch.cuda.max_memory_reserved() / 2**30
        return found

    return play


def _put(pipeline: Any, settings: Settings, device: torch.device) -> str:
    """Put it on its device, with diffusers' own offloading if it does not fit. Returns the name of that."""
    sizes = [
        sum(p.nbytes for p in part.parameters()) for part in pipeline.components.values() if hasattr(part, "parameters")
    ]
    weights, largest = sum(sizes), max(sizes)
    gpu = settings.placement.devices[0].gpu
    there = gpu.memory_gib * 2**30 if gpu and gpu.memory_gib else float("inf")
    if there > SPARE * weights:
        pipeline.to(device)
        return "none"
    if there > SPARE * largest:
        pipeline.enable_model_cpu_offload(device=device)
        return "model"
    pipeline.enable_sequential_cpu_offload(device=device)
    return "sequential"


def _asked(settings: Settings, rows: list[dict]) -> dict[str, Any]:
    """The arguments of a pipeline call for rows of one size."""
    import numpy as np
    import torch
    from PIL import Image

    width, height = map(int, rows[0]["size"].split("x"))
    how = {
        "prompt": [row["prompt"] for row in rows],
        "width": width,
        "height": height,
        "num_inference_steps": settings.image.steps,
        "guidance_scale": settings.image.guidance,
        "max_sequence_length": settings.engine.max_sequence_length,
        "generator": [torch.Generator("cpu").manual_seed(row["seed"]) for row in rows],
    }
    if settings.task == "edit":
        pictures = []
        for row in rows:
            with Image.open(row["image"]) as picture:
                pictures.append(np.asarray(picture.convert("RGB")))
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        # Without the last argument it would scale them to one of the sizes it was trained on.
        how |= {"image": pixels, "max_area": width * height, "_auto_resize": False}
    return how


def _pipeline(modules: Any, task: str) -> Any:
    from diffusers import FluxKontextPipeline, FluxPipeline

    parts = {name: getattr(modules, name) for name in FLUX1.folders}
    return (FluxKontextPipeline if task == "edit" else FluxPipeline)(**parts)


def transformers(settings: Settings) -> Play:
    """A VLM's `generate`, greedy, with images of one size together."""
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from fastgen.embedded.captioner import messages

    device = torch.device("cuda" if settings.placement.devices[0].kind == "cuda" else "cpu")
    dtype = getattr(torch, settings.engine.dtype)
    place = settings.model.path or settings.model.name
    model = AutoModelForImageTextToText.from_pretrained(place, dtype=dtype).to(device).eval()
    processor = AutoProcessor.from_pretrained(place)
    processor.tokenizer.padding_side = "left"

    prompt = processor.apply_chat_template(
        messages(settings.text.system, settings.text.prompt), add_generation_prompt=True, tokenize=False
    )

    def call(rows: list[dict]) -> list[str]:
        pictures = []
        for row in rows:
            with Image.open(row["image"]) as picture:
                pictures.append([picture.convert("RGB")])
        inputs = processor(text=[prompt] * len(rows), images=pictures, padding=True, return_tensors="pt").to(
            device, dtype
        )
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=settings.text.max_tokens, do_sample=False)
        return processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    at_once = 0

    def play(rows: list[dict], out: Path) -> Round:
        nonlocal at_once
        if not at_once and len(rows) > 1:
            if device.type == "cpu":
                choose_threads(settings.placement.devices[0].threads, lambda: call(rows[: CAPTIONS_AT_ONCE[0]]))
            at_once = min(CAPTIONS_AT_ONCE, key=lambda most: _seconds(lambda: call(rows[:most])) / len(rows[:most]))
        found = Round()
        started = time.monotonic()
        for batch in _batches(rows, at_once or 1):
            found.made |= {row["id"]: text.strip() for row, text in zip(batch, call(batch), strict=True)}
        found.seconds = time.monotonic() - started
        found.facts = {"threads": torch.get_num_threads(), "batch_size": at_once}
        if device.type == "cuda":
            found.gpu_peak_gib = torch.cuda.max_memory_reserved() / 2**30
        return found

    return play


def choose_threads(most: int, call: Callable[[], object]) -> bool:
    """One thread or all, whichever makes the call faster: threads that share a small batch may only wait for each
    other."""
    import torch

    seconds: dict[int, float] = {}
    for threads in {1, most}:
        torch.set_num_threads(threads)
        seconds[threads] = _seconds(call)
    torch.set_num_threads(min(seconds, key=lambda threads: seconds[threads]))
    return True


def _seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def _pixels(rows: list[dict]) -> int:
    width, height = map(int, rows[0]["size"].split("x"))
    return width * height


def _batches(rows: list[dict], size: int) -> Iterator[list[dict]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
