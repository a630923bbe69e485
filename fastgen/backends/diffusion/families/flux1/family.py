"""FLUX.1 and Kontext as a `Family`: what each method does is in the files beside this one."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.families import patches, shifted
from fastgen.backends.diffusion.families.flux1 import latents, text
from fastgen.backends.diffusion.families.flux1.forward import Forward
from fastgen.backends.diffusion.families.flux1.load import load as load_modules
from fastgen.backends.diffusion.families.memo import memoized
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import upload
from fastgen.config.families import FLUX1
from fastgen.config.settings import Settings

Rope = tuple[torch.Tensor, torch.Tensor]


class Flux1:
    """Args: max_sequence_length: T5 tokens of a prompt."""

    text_parts = FLUX1.text

    def __init__(self, modules: Modules, max_sequence_length: int = 512):
        self.modules = modules
        self.max_sequence_length = max_sequence_length
        self._schedule = memoized(partial(shifted.sigmas, modules.scheduler))
        self.rope = memoized(partial(_rope, modules))
        """See `_rope`."""

    def encode_prompts(self, prompts: list[str]) -> list[Any]:
        return text.encode(self.modules, prompts, self.max_sequence_length)

    def contrast(self, guidance: float, true_cfg: float | None, negative: str | None) -> tuple[str, float] | None:
        """As in diffusers, a second pass only if the row has both a scale and a negative prompt."""
        return (negative, true_cfg) if negative is not None and true_cfg is not None and true_cfg > 1 else None

    def noise(self, seed: int, width: int, height: int) -> torch.Tensor:
        return latents.make_noise(seed, width, height)

    def mask(self, mask: Image.Image, size: tuple[int, int]) -> torch.Tensor:
        return latents.token_mask(mask, size)

    def encode_pictures(self, pictures: list[np.ndarray]) -> list[torch.Tensor]:
        return latents.encode_pictures(self.modules, pictures)

    def to_maps(self, packed: torch.Tensor, width: int, height: int) -> torch.Tensor:
        return latents.to_maps(self.modules, packed, width, height)

    def to_grid(self, packed: torch.Tensor, width: int, height: int) -> torch.Tensor:
        return patches.unpack(packed[None], 2 * (height // 16), 2 * (width // 16))[0]

    def from_grid(self, grid: torch.Tensor) -> torch.Tensor:
        return patches.pack(grid[None])[0]

    def small_size(self, width: int, height: int, scale: float) -> tuple[int, int]:
        return max(16, 16 * round(width * scale / 16)), max(16, 16 * round(height * scale / 16))

    def decode(self, maps: torch.Tensor) -> torch.Tensor:
        return self.modules.vae.decode(maps, return_dict=False)[0]

    def key(self, sample: Sample) -> Hashable:
        """Attention runs over text, image and reference as one sequence without padding, so its length must agree, and
        the positions are those of the sizes."""
        return sample.width, sample.height, sample.reference_sizes

    def sigmas(self, steps: int, tokens: int) -> torch.Tensor:
        return self._schedule(steps, tokens)

    def timesteps(self, sigmas: torch.Tensor) -> torch.Tensor:
        return (sigmas * 1000).to(self.modules.dtype) / 1000 * 1000  # rounded as in diffusers' pipelines

    def guided(self, positive: torch.Tensor, negative: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return negative + scale.to(positive.dtype) * (positive - negative)

    def forward(self, samples: list[Sample], guidance: torch.Tensor) -> Any:
        first = samples[0]
        rope = self.rope(first.prompt.embeds.shape[0], (first.width, first.height), first.reference_sizes)
        return Forward(self.modules, samples, guidance, rope)


def load(settings: Settings, device: torch.device) -> Flux1:
    """The model of the settings; see `load.load`. Raises ModelError."""
    return Flux1(load_modules(settings, device), settings.engine.max_sequence_length)


def _rope(modules: Modules, text: int, size: tuple[int, int], references: tuple[tuple[int, int], ...]) -> Rope:
    """Rotary positions (cos, sin) of text, image and reference tokens, in that order."""
    ids = [torch.zeros(text, 3), latents.position_ids(size, 0)]
    # Kontext tells the reference from the image by the first axis.
    ids += [latents.position_ids(reference, 1) for reference in references]
    rope: Rope = modules.transformer.pos_embed(upload(torch.cat(ids), modules.device))
    return rope
