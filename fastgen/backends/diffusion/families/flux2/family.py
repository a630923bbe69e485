"""FLUX.2 as a `Family`, here klein: what each method does is in the files beside this one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.families import parts, patches
from fastgen.backends.diffusion.families.flux2 import latents, schedule, text
from fastgen.backends.diffusion.families.flux2.forward import Forward
from fastgen.backends.diffusion.families.memo import memoized
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import upload
from fastgen.config.families import FLUX2, Parts
from fastgen.config.settings import Settings

Rope = tuple[torch.Tensor, torch.Tensor]


class Flux2:
    """Args:
    max_sequence_length: tokens of a prompt.
    distilled: whether a second pass for guidance is of no use.
    """

    text_parts = FLUX2.text

    def __init__(self, modules: Modules, max_sequence_length: int = 512, distilled: bool = True):
        self.modules = modules
        self.max_sequence_length = max_sequence_length
        self.distilled = distilled
        self.channels: int = modules.transformer.config.in_channels
        self._schedule = memoized(partial(schedule.sigmas, modules.scheduler))
        self._rope = memoized(partial(_rope, modules))

    def encode_prompts(self, prompts: list[str]) -> list[text.Prompt]:
        return text.encode(self.modules, prompts, self.max_sequence_length)

    def contrast(self, guidance: float, true_cfg: float | None, negative: str | None) -> tuple[str, float] | None:
        """The base models have true guidance, with an empty prompt if the row has no negative one."""
        scale = guidance if true_cfg is None else true_cfg
        return (negative or "", scale) if scale > 1 and not self.distilled else None

    def noise(self, seed: int, width: int, height: int) -> torch.Tensor:
        return latents.make_noise(seed, width, height, self.channels)

    def mask(self, mask: Image.Image, size: tuple[int, int]) -> torch.Tensor:
        return patches.token_mask(mask, size, 16, self.channels)

    def encode_pictures(self, pictures: list[np.ndarray]) -> list[torch.Tensor]:
        return latents.encode_pictures(self.modules, pictures)

    def to_maps(self, packed: torch.Tensor, width: int, height: int) -> torch.Tensor:
        return latents.to_maps(self.modules, packed, width, height)

    def decode(self, maps: torch.Tensor) -> torch.Tensor:
        return self.modules.vae.decode(maps, return_dict=False)[0]

    def key(self, sample: Sample) -> Hashable:
        """Attention runs over text, image and references as one sequence without padding, so its length must agree, and
        the positions are those of the sizes."""
        return sample.width, sample.height, sample.reference_sizes

    def sigmas(self, steps: int, tokens: int) -> torch.Tensor:
        return self._schedule(steps, tokens)

    def timesteps(self, sigmas: torch.Tensor) -> torch.Tensor:
        return (sigmas * 1000).to(self.modules.dtype) / 1000 * 1000  # rounded as in diffusers' pipelines

    def guided(self, positive: torch.Tensor, negative: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return negative + scale.to(positive.dtype) * (positive - negative)

    def forward(self, samples: list[Sample], guidance: torch.Tensor) -> Forward:
        return Forward(self.modules, samples, guidance, self.rope_of(samples[0]))

    def rope_of(self, sample: Sample) -> Rope:
        size = (sample.width, sample.height)
        return self._rope(sample.prompt.embeds.shape[0], size, sample.reference_sizes)


def load(settings: Settings, device: torch.device) -> Flux2:
    """The model of the settings; see `families/parts.py`. Raises ModelError."""
    modules = load_modules(settings, device, FLUX2)
    return Flux2(modules, settings.engine.max_sequence_length, distilled=not settings.model.defaults.true_cfg)


def load_modules(
    settings: Settings,
    device: torch.device,
    of: Parts,
    more: Callable[[dict[str, Any]], None] = lambda modules: None,
) -> Modules:
    """Those of klein. Args: more: sets the modules right before LoRAs are merged."""
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    from transformers import Qwen3Model

    def shorten(modules: dict[str, Any]) -> None:
        cut_layers(modules["text_encoder"], of.text_layers)
        more(modules)

    classes = {"transformer": Flux2Transformer2DModel, "vae": AutoencoderKLFlux2, "text_encoder": Qwen3Model}
    return parts.load(settings, device, of, classes, shorten)


def cut_layers(encoder: Any, needed: int) -> None:
    """Leave out a language model's layers after the last one that is read. The one after it stays, because the last
    hidden state of all would be normalized."""
    if len(encoder.layers) > needed:
        encoder.layers = encoder.layers[:needed]
        encoder.config.num_hidden_layers = needed


def _rope(modules: Modules, tokens: int, size: tuple[int, int], references: tuple[tuple[int, int], ...]) -> Rope:
    """Rotary positions (cos, sin) for text, image and reference tokens, in that order."""
    ids = [latents.text_ids(tokens), latents.position_ids(size, 0)]
    ids += [latents.position_ids(shape, latents.REFERENCES * (1 + number)) for number, shape in enumerate(references)]
    rope: Rope = modules.transformer.pos_embed(upload(torch.cat(ids), modules.device))
    return rope
