"""Z-Image as a `Family`: what each method does is in the files beside this one."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.families import parts, patches, shifted
from fastgen.backends.diffusion.families.memo import memoized
from fastgen.backends.diffusion.families.z_image import latents, text
from fastgen.backends.diffusion.families.z_image.forward import Forward
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.modules import Modules
from fastgen.config.families import Z_IMAGE
from fastgen.config.settings import Settings

SMALL = 1024
"""Images of up to this many tokens (512x512) share a forward pass with others of about their size: one alone does not
fill a GPU."""


class ZImage:
    """Args: max_sequence_length: tokens of a prompt."""

    text_parts = Z_IMAGE.text

    def __init__(self, modules: Modules, max_sequence_length: int = 512):
        self.modules = modules
        self.max_sequence_length = max_sequence_length
        self.channels: int = modules.transformer.config.in_channels
        self._schedule = memoized(partial(shifted.sigmas, modules.scheduler))

    def encode_prompts(self, prompts: list[str]) -> list[text.Prompt]:
        return text.encode(self.modules, prompts, self.max_sequence_length)

    def contrast(self, guidance: float, true_cfg: float | None, negative: str | None) -> tuple[str, float] | None:
        """As in diffusers, from any scale above 0, with an empty prompt if the row has no negative one."""
        scale = guidance if true_cfg is None else true_cfg
        return (negative or "", scale) if scale > 0 else None

    def noise(self, seed: int, width: int, height: int) -> torch.Tensor:
        return latents.make_noise(seed, width, height, self.channels)

    def mask(self, mask: Image.Image, size: tuple[int, int]) -> torch.Tensor:
        return patches.token_mask(mask, size, 16, 4 * self.channels)

    def encode_pictures(self, pictures: list[np.ndarray]) -> list[torch.Tensor]:
        return latents.encode_pictures(self.modules, pictures)

    def to_maps(self, packed: torch.Tensor, width: int, height: int) -> torch.Tensor:
        return latents.to_maps(self.modules, packed, width, height)

    def decode(self, maps: torch.Tensor) -> torch.Tensor:
        return self.modules.vae.decode(maps, return_dict=False)[0]

    def key(self, sample: Sample) -> Hashable:
        """Small images of different sizes are filled up to the largest of them, which at most doubles them. Not with a
        step cache: it would compare the filling too."""
        tokens = len(sample.noise)
        if tokens > SMALL or self.modules.step_cache is not None:
            return sample.width, sample.height
        return (tokens - 1).bit_length()

    def sigmas(self, steps: int, tokens: int) -> torch.Tensor:
        return self._schedule(steps, tokens)

    def timesteps(self, sigmas: torch.Tensor) -> torch.Tensor:
        return (1000 - sigmas * 1000) / 1000  # rounded as in diffusers' pipeline; the model counts upwards

    def guided(self, positive: torch.Tensor, negative: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return positive.float() + scale * (positive.float() - negative.float())

    def forward(self, samples: list[Sample], guidance: torch.Tensor) -> Forward:
        return Forward(self.modules, samples)


def load(settings: Settings, device: torch.device) -> ZImage:
    """The model of the settings; see `families/parts.py`. Raises ModelError."""
    from diffusers import AutoencoderKL, ZImageTransformer2DModel
    from transformers import Qwen3Model

    classes = {"transformer": ZImageTransformer2DModel, "vae": AutoencoderKL, "text_encoder": Qwen3Model}
    modules = parts.load(settings, device, Z_IMAGE, classes)
    return ZImage(modules, settings.engine.max_sequence_length)
