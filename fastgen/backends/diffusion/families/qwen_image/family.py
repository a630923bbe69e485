"""Qwen-Image as a `Family`: what each method does is in the files beside this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.families import parts, patches, shifted
from fastgen.backends.diffusion.families.memo import memoized
from fastgen.backends.diffusion.families.qwen_image import latents, text
from fastgen.backends.diffusion.families.qwen_image.forward import Forward
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.folder import Folder
from fastgen.backends.diffusion.modules import Modules
from fastgen.config.families import QWEN_IMAGE, Parts
from fastgen.config.settings import Settings

NEGATIVE = " "
"""The negative prompt of rows without one, by the model card."""


class QwenImage:
    """Args: max_sequence_length: tokens of a prompt."""

    text_parts = QWEN_IMAGE.text

    def __init__(self, modules: Modules, max_sequence_length: int = 512):
        self.modules = modules
        self.max_sequence_length = max_sequence_length
        self.channels: int = modules.transformer.config.in_channels // 4
        self._schedule = memoized(partial(shifted.sigmas, modules.scheduler))
        self._vae = threading.Lock()
        """The VAE remembers frames while it works, so one thread at a time."""

    def encode_prompts(self, prompts: list[str]) -> list[text.Prompt]:
        return text.encode(self.modules, prompts, self.max_sequence_length)

    def contrast(self, guidance: float, true_cfg: float | None, negative: str | None) -> tuple[str, float] | None:
        scale = guidance if true_cfg is None else true_cfg
        return (NEGATIVE if negative is None else negative, scale) if scale > 1 else None

    def noise(self, seed: int, width: int, height: int) -> torch.Tensor:
        return latents.make_noise(seed, width, height, self.channels)

    def mask(self, mask: Image.Image, size: tuple[int, int]) -> torch.Tensor:
        return patches.token_mask(mask, size, 16, 4 * self.channels)

    def encode_pictures(self, pictures: list[np.ndarray]) -> list[torch.Tensor]:
        with self._vae:
            return latents.encode_pictures(self.modules, pictures)

    def to_maps(self, packed: torch.Tensor, width: int, height: int) -> torch.Tensor:
        return latents.to_maps(self.modules, packed, width, height)

    def decode(self, maps: torch.Tensor) -> torch.Tensor:
        with self._vae:
            return self.modules.vae.decode(maps[:, :, None], return_dict=False)[0][:, :, 0]

    def key(self, sample: Sample) -> Hashable:
        """The positions are those of the sizes; prompts may have different lengths."""
        return sample.width, sample.height, sample.reference_sizes

    def sigmas(self, steps: int, tokens: int) -> torch.Tensor:
        return self._schedule(steps, tokens)

    def timesteps(self, sigmas: torch.Tensor) -> torch.Tensor:
        return (sigmas * 1000).to(self.modules.dtype) / 1000  # rounded as in diffusers' pipelines

    def guided(self, positive: torch.Tensor, negative: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """With the length that each token's velocity has without guidance."""
        joined = negative + scale.to(positive.dtype) * (positive - negative)
        return joined * (torch.norm(positive, dim=-1, keepdim=True) / torch.norm(joined, dim=-1, keepdim=True))

    def forward(self, samples: list[Sample], guidance: torch.Tensor) -> Forward:
        return Forward(self.modules, samples)


def load(settings: Settings, device: torch.device) -> QwenImage:
    """The model of the settings; see `families/parts.py`. Raises ModelError."""
    return QwenImage(load_modules(settings, device, QWEN_IMAGE), settings.engine.max_sequence_length)


def load_modules(
    settings: Settings,
    device: torch.device,
    of: Parts,
    more: Callable[[Folder], dict[str, Any]] = lambda folder: {},
) -> Modules:
    """Args: more: further members of `Modules` besides the tokenizers."""

    def shorten(modules: dict[str, Any]) -> None:
        """Of the text encoder only what is used: it predicts no words, and sees images only where there are any."""
        encoder = modules["text_encoder"].model
        modules["text_encoder"] = encoder if of.processor else encoder.language_model
        _place_positions(modules)

    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLForConditionalGeneration

    classes = {
        "transformer": QwenImageTransformer2DModel,
        "vae": AutoencoderKLQwenImage,
        "text_encoder": Qwen2_5_VLForConditionalGeneration,
    }
    return parts.load(settings, device, of, classes, shorten, more)


def _place_positions(modules: dict[str, Any]) -> None:
    """The tables of positions are no weights: a transformer that was made without weights has none yet."""
    old = modules["transformer"].pos_embed
    if old.pos_freqs.is_meta:
        modules["transformer"].pos_embed = type(old)(old.theta, old.axes_dim, old.scale_rope)
