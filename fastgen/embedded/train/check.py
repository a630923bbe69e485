"""How often the embedded FLUX does what it is told, measured with diffusers' own pipelines and the scene reader."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastgen.embedded.scenes import (
    CANVASES,
    Edit,
    Scene,
    Text,
    Wish,
    as_wish,
    changed,
    describe,
    draw,
    match,
    parse,
    random_edit,
    random_scene,
    read,
)

BATCH = 10
Canvases = Sequence[tuple[int, int]]


def check_prompts(
    model: Path,
    count: int,
    shapes: int,
    *,
    steps: int = 12,
    guidance: float = 3.5,
    length: int = 64,
    seed: int = 777,
    canvases: Canvases = CANVASES,
) -> tuple[dict[str, float], list[Image.Image]]:
    """Shares of unseen prompts that are drawn right, by part and in total, and the images."""
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    verdicts, pictures = [], []
    for number, canvas in _batches(count, canvases):
        rng = random.Random(f"{seed}-{shapes}-{number}")
        prompts = [describe(random_scene(rng, canvas, shapes), rng).text for _ in range(BATCH)]
        made = pipeline(
            prompts,
            width=canvas[0],
            height=canvas[1],
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=length,
            generator=torch.Generator().manual_seed(seed + number),
        ).images
        pictures += made
        verdicts += [match(parse(p) or Wish(None, ()), read(np.asarray(m))) for p, m in zip(prompts, made, strict=True)]
    return _shares(verdicts), pictures


def check_edits(
    model: Path,
    count: int,
    *,
    steps: int = 12,
    guidance: float = 3.5,
    length: int = 64,
    seed: int = 778,
    operation: str | None = None,
) -> tuple[dict[str, float], list[Image.Image]]:
    """Shares of unseen edits that are right, the mean difference outside of the edit (0..255), and the images before
    and after, alternating."""
    from diffusers import FluxKontextPipeline

    pipeline = FluxKontextPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    verdicts, pictures, outside = [], [], []
    for number, canvas in _batches(count, CANVASES):
        rng = random.Random(f"{seed}-edit-{number}")
        scenes, edits = zip(*(_editable(rng, canvas, operation) for _ in range(BATCH)), strict=True)
        before = [Image.fromarray(draw(scene)) for scene in scenes]
        pixels = (
            torch.from_numpy(np.stack([np.asarray(picture) for picture in before])).permute(0, 3, 1, 2).float() / 255
        )
        made = pipeline(
            image=pixels,
            prompt=[text.text for _, text, _ in edits],
            width=canvas[0],
            height=canvas[1],
            max_area=canvas[0] * canvas[1],
            _auto_resize=False,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=length,
            generator=torch.Generator().manual_seed(seed + number),
        ).images
        for scene, (_, _, after), old, new in zip(scenes, edits, before, made, strict=True):
            verdicts.append(match(as_wish(after), read(np.asarray(new))))
            off = np.abs(np.asarray(old, np.float32) - np.asarray(new, np.float32)).mean(-1)
            kept = ~changed(scene, after)
            if kept.any():
                outside.append(float(off[kept].mean()))
            pictures += [old, new]
    return _shares(verdicts) | {"outside": round(float(np.mean(outside)), 2)}, pictures


def _editable(
    rng: random.Random, canvas: tuple[int, int], operation: str | None
) -> tuple[Scene, tuple[Edit, Text, Scene]]:
    """A scene in which the operation is possible, and an edit of that kind."""
    while True:
        scene = random_scene(rng, canvas)
        try:
            return scene, random_edit(scene, rng, operation)
        except ValueError:  # no room for it, or nothing to apply it to
            continue


def _batches(count: int, canvases: Canvases) -> list[tuple[int, tuple[int, int]]]:
    return [(number, canvases[number % len(canvases)]) for number in range(-(-count // BATCH))]


def _shares(verdicts: list) -> dict[str, float]:
    rows = [asdict(verdict) | {"all": verdict.all} for verdict in verdicts]
    return {name: round(sum(row[name] for row in rows) / len(rows), 3) for name in rows[0]}


def contact_sheet(pictures: list[Image.Image], path: Path, columns: int = 10) -> None:
    side = 4 + max(max(picture.size) for picture in pictures)
    sheet = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * side), (70, 70, 70))
    for at, picture in enumerate(pictures):
        sheet.paste(picture, (at % columns * side + 2, at // columns * side + 2))
    sheet.save(path)
