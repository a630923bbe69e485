"""Chroma as a `Family`: FLUX.1's latents and schedule, with text and blocks of its own. What each method does is in the
files beside this one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch

from fastgen.backends.diffusion.families import parts
from fastgen.backends.diffusion.families.chroma import text
from fastgen.backends.diffusion.families.chroma.forward import Forward
from fastgen.backends.diffusion.families.flux1.family import Flux1
from fastgen.backends.diffusion.family import Sample
from fastgen.config.families import CHROMA
from fastgen.config.settings import Settings


class Chroma(Flux1):
    text_parts = CHROMA.text

    def encode_prompts(self, prompts: list[str]) -> list[Any]:
        return text.encode(self.modules, prompts, self.max_sequence_length)

    def contrast(self, guidance: float, true_cfg: float | None, negative: str | None) -> tuple[str, float] | None:
        scale = guidance if true_cfg is None else true_cfg
        return (negative or "", scale) if scale > 1 else None

    def key(self, sample: Sample) -> Hashable:
        """The positions are those of the size; prompts may have different lengths."""
        return sample.width, sample.height

    def forward(self, samples: list[Sample], guidance: torch.Tensor) -> Any:
        return Forward(self.modules, samples, self.rope(0, (samples[0].width, samples[0].height), ()))


def load(settings: Settings, device: torch.device) -> Chroma:
    """The model of the settings; see `families/parts.py`. Raises ModelError."""
    from diffusers import AutoencoderKL, ChromaTransformer2DModel
    from transformers import T5EncoderModel

    classes = {"transformer": ChromaTransformer2DModel, "vae": AutoencoderKL, "text_encoder": T5EncoderModel}
    return Chroma(parts.load(settings, device, CHROMA, classes, _place_rows), settings.engine.max_sequence_length)


def _place_rows(modules: dict[str, Any]) -> None:
    """The table of the modulation's rows is no weight: a transformer that was made without weights has none yet."""
    old = modules["transformer"].time_text_embed
    if old.mod_proj.is_meta:
        rows, numbers = old.mod_proj.shape
        modules["transformer"].time_text_embed = type(old)(numbers // 2, rows)
