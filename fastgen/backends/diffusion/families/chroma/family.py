"""Chroma as a `Family`: what each method does is in the files beside this one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.families import parts, shifted
from fastgen.backends.diffusion.families.chroma import text
from fastgen.backends.diffusion.families.chroma.forward import Forward
from fastgen.backends.diffusion.families.flux1 import latents
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import upload
from fastgen.config.families import CHROMA
from fastgen.config.settings import Settings

Rope = tuple[torch.Tensor, torch.Tensor]
MOST_ROPES = 64
"""Sizes whose positions are kept."""


class Chroma:
    """Args: max_sequence_length: T5 tokens of a prompt."""

    text_parts = CHROMA.text

    def __init__(self, modules: Modules, max_sequence_length: int = 512):
        self.modules = modules
        self.max_sequence_length = max_sequence_length
        self._sigmas: dict[tuple[int, int], torch.Tensor] = {}
        self._rope: dict[tuple[int, int], Rope] = {}

    def encode_prompts(self, prompts: list[str]) -> list[text.Prompt]:
        return text.encode(self.modules, prompts, self.max_sequence_length)

    def contrast(self, guidance: float, true_cfg: float | None, negative: str | None) -> tuple[str, float] | None:
        scale = guidance if true_cfg is None else true_cfg
        return (negative or "", scale) if scale > 1 else None

    def noise(self, seed: int, width: int, height: int) -> torch.Tensor:
        return latents.make_noise(seed, width, height)

    def mask(self, mask: Image.Image, size: tuple[int, int]) -> torch.Tensor:
        return latents.token_mask(mask, size)

    def encode_pictures(self, pictures: list[np.ndarray]) -> list[torch.Tensor]:
        return latents.encode_pictures(self.modules, pictures)

    def to_maps(self, packed: torch.Tensor, width: int, height: int) -> torch.Tensor:
        return latents.to_maps(self.modules, packed, width, height)

    def decode(self, maps: torch.Tensor) -> torch.Tensor:
        return self.modules.vae.decode(maps, return_dict=False)[0]

    def key(self, sample: Sample) -> Hashable:
        """The positions are those of the size; prompts may have different lengths."""
        return sample.width, sample.height

    def sigmas(self, steps: int, tokens: int) -> torch.Tensor:
        if (steps, tokens) not in self._sigmas:
            self._sigmas[steps, tokens] = shifted.sigmas(self.modules.scheduler, steps, tokens)
        return self._sigmas[steps, tokens]

    def timesteps(self, sigmas: torch.Tensor) -> torch.Tensor:
        return (sigmas * 1000).to(self.modules.dtype) / 1000 * 1000  # rounded as in diffusers' pipelines

    def guided(self, positive: torch.Tensor, negative: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return negative + scale.to(positive.dtype) * (positive - negative)

    def forward(self, samples: list[Sample], guidance: torch.Tensor) -> Forward:
        size = (samples[0].width, samples[0].height)
        if size not in self._rope:
            if len(self._rope) > MOST_ROPES:
                self._rope.clear()
            ids = upload(latents.position_ids(size, 0), self.modules.device)
            self._rope[size] = self.modules.transformer.pos_embed(ids)
        return Forward(self.modules, samples, self._rope[size])


def load(settings: Settings, device: torch.device) -> Chroma:
    """The model of the settings; see `families/parts.py`. Raises ModelError."""
    from diffusers import AutoencoderKL, ChromaTransformer2DModel
    from transformers import T5EncoderModel

    classes = {"transformer": ChromaTransformer2DModel, "vae": AutoencoderKL, "text_encoder": T5EncoderModel}
    tokenizer = {"more": lambda folder: {"tokenizer": folder.tokenizer("tokenizer")}}
    modules = parts.load(settings, device, CHROMA, classes, _place_rows, **tokenizer)
    return Chroma(modules, settings.engine.max_sequence_length)


def _place_rows(modules: dict[str, Any]) -> None:
    """The table of the modulation's rows is no weight: a transformer that was made without weights has none yet."""
    old = modules["transformer"].time_text_embed
    if old.mod_proj.is_meta:
        rows, numbers = old.mod_proj.shape
        modules["transformer"].time_text_embed = type(old)(numbers // 2, rows)
