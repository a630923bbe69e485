"""The images that the embedded FLUX learns from, encoded by the VAE once and stored: pairs of a scene and an edit of
it.

A pair is made from its number alone, so only latents are stored; its words are drawn again whenever it is used.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.families.flux1.latents import pack
from fastgen.embedded.scenes import (
    CANVASES,
    COLORS,
    KINDS,
    PLACES,
    SIZES,
    Edit,
    Scene,
    Text,
    changed,
    draw,
    random_edit,
    random_scene,
)
from fastgen.embedded.train.vae import to_tensor

TOKENS = max(w // 16 * (h // 16) for w, h in CANVASES)
"""Image tokens in training; smaller canvases are padded and the padding is masked."""
CHUNK = 20
"""Pairs on one canvas, encoded together."""
PART = 2000


def pair(seed: int, index: int) -> tuple[Scene, Edit, Text, Scene]:
    """Pair number `index`: a scene, an edit, its instruction, and the scene after it."""
    rng = random.Random(f"{seed}-pair-{index}")
    scene = random_scene(rng, CANVASES[index // CHUNK % len(CANVASES)])
    return (scene, *random_edit(scene, rng))


@dataclass
class Latents:
    pairs: list[tuple[Scene, Edit, Text, Scene]]
    before: torch.Tensor
    """(pairs, TOKENS, 64), float16."""
    after: torch.Tensor
    touched: torch.Tensor
    """(pairs, 3, TOKENS), bool: tokens that contain a shape before and after, and those that the edit changes."""
    labels: torch.Tensor
    """(pairs, 2, len(PARTS), TOKENS), uint8: the shape of a token before and after; see `label`."""
    outline: torch.Tensor
    """(pairs, 2, TOKENS, 16), uint8: how much of each 4x4 pixels of a token is covered by shapes, 0 to 255."""


def _tokens(mask: np.ndarray) -> np.ndarray:
    """Pixels (height, width) -> whether any of a 16x16 patch is set, padded to TOKENS."""
    height, width = mask.shape
    patches = mask.reshape(height // 16, 16, width // 16, 16).any((1, 3)).ravel()
    return np.pad(patches, (0, TOKENS - patches.size))


@torch.inference_mode()
def encode(vae: Any, pictures: list[np.ndarray]) -> torch.Tensor:
    """Images of one canvas -> packed latents (B, TOKENS, 64), normalised as FLUX needs them."""
    latents = (
        vae.encode(to_tensor(pictures).to(vae.device)).latent_dist.mean - vae.config.shift_factor
    ) * vae.config.scaling_factor
    packed = pack(latents.contiguous())
    return torch.nn.functional.pad(packed, (0, 0, 0, TOKENS - packed.shape[1])).cpu()


PARTS = {"kind": list(KINDS), "color": list(COLORS), "size": list(SIZES), "place": list(PLACES)}
"""The properties of a shape, and the words for each."""


def label(scene: Scene, columns: int, rows: int, least: float = 0.06) -> np.ndarray:
    """The shape in each cell of a grid over the scene: classes (len(PARTS), rows, columns), by `PARTS`.

    The class after the last one is "none": no shape covers at least `least` of the cell.
    """
    found = np.empty((len(PARTS), rows, columns), np.uint8)
    found[:] = np.array([len(names) for names in PARTS.values()])[:, None, None]
    most = np.full((rows, columns), least)
    for shape in scene.shapes:
        whole = Image.fromarray(shape.coverage(scene.width, scene.height))
        covered = np.asarray(whole.resize((columns, rows), Image.Resampling.BOX))
        for index, (part, names) in enumerate(PARTS.items()):
            found[index][covered > most] = names.index(getattr(shape, part))
        most = np.maximum(most, covered)
    return found


def _token_labels(scene: Scene) -> np.ndarray:
    flat = label(scene, scene.width // 16, scene.height // 16).reshape(len(PARTS), -1)
    none = np.array([[len(names)] for names in PARTS.values()], np.uint8)
    return np.concatenate([flat, none.repeat(TOKENS - flat.shape[1], 1)], 1)


def _outline(scene: Scene) -> np.ndarray:
    whole = np.zeros((scene.height, scene.width), np.float32)
    for shape in scene.shapes:
        whole = np.maximum(whole, shape.coverage(scene.width, scene.height))
    rows, columns = scene.height // 16, scene.width // 16
    cells = whole.reshape(rows, 4, 4, columns, 4, 4).mean((2, 5))  # token row, cell row, token column, cell column
    flat = cells.transpose(0, 2, 1, 3).reshape(rows * columns, 16)
    return np.pad((flat * 255).round().astype(np.uint8), ((0, TOKENS - len(flat)), (0, 0)))


def make(vae: Any, folder: Path, pairs: int, seed: int, parts: range | None = None) -> Latents:
    """Read the latents from `folder`, and make the missing parts, with `PART` pairs each.

    Args:
        parts: only these, if several processes share the work; by default all that `pairs` needs.
    """
    kept = []
    for part in parts or range(-(-pairs // PART)):
        path = folder / f"{seed}-{part:03}.pt"
        if not path.exists():
            started = time.monotonic()
            folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")
            torch.save(_part(vae, range(part * PART, (part + 1) * PART), seed), partial)
            os.replace(partial, path)
            print(f"latents: part {part} in {time.monotonic() - started:.0f} s", flush=True)
        kept.append(torch.load(path, weights_only=True))
    whole = {name: torch.cat([part[name] for part in kept]) for name in kept[0]}
    return Latents([pair(seed, index) for index in range(len(whole["before"]))], **whole)


def _part(vae: Any, indexes: range, seed: int) -> dict[str, torch.Tensor]:
    before, after, touched, labels, outline = [], [], [], [], []
    for start in range(indexes.start, indexes.stop, CHUNK):
        found = [pair(seed, index) for index in range(start, start + CHUNK)]
        both = encode(vae, [draw(p[0]) for p in found] + [draw(p[3]) for p in found]).half()
        before.append(both[:CHUNK])
        after.append(both[CHUNK:])
        for a, _, _, b in found:
            shapes = [_tokens(_anything(scene)) for scene in (a, b)]
            touched.append(np.stack([*shapes, _tokens(changed(a, b, 1))]))
            labels.append(np.stack([_token_labels(scene) for scene in (a, b)]))
            outline.append(np.stack([_outline(scene) for scene in (a, b)]))
    return {
        "before": torch.cat(before),
        "after": torch.cat(after),
        "touched": torch.from_numpy(np.stack(touched)),
        "labels": torch.from_numpy(np.stack(labels)),
        "outline": torch.from_numpy(np.stack(outline)),
    }


def _anything(scene: Scene) -> np.ndarray:
    covered = np.zeros((scene.height, scene.width), bool)
    for shape in scene.shapes:
        covered |= shape.coverage(scene.width, scene.height) > 0
    return covered
