"""FLUX.2-dev as a `Family`: klein's transformer and VAE, with guidance in the model and another text encoder."""

from __future__ import annotations

from typing import Any

import torch

from fastgen.backends.diffusion.families import parts
from fastgen.backends.diffusion.families.flux2 import text
from fastgen.backends.diffusion.families.flux2.family import Flux2, cut_layers
from fastgen.backends.diffusion.families.llm_text import Prompt
from fastgen.config.families import FLUX2_DEV
from fastgen.config.settings import Settings


class Flux2Dev(Flux2):
    text_parts = FLUX2_DEV.text

    def encode_prompts(self, prompts: list[str]) -> list[Prompt]:
        return text.encode_dev(self.modules, prompts, self.max_sequence_length)


def load(settings: Settings, device: torch.device) -> Flux2Dev:
    """The model of the settings; see `families/parts.py`. Raises ModelError."""
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    from transformers import Mistral3ForConditionalGeneration

    classes = {
        "transformer": Flux2Transformer2DModel,
        "vae": AutoencoderKLFlux2,
        "text_encoder": Mistral3ForConditionalGeneration,
    }
    modules = parts.load(settings, device, FLUX2_DEV, classes, _shorten)
    return Flux2Dev(modules, settings.engine.max_sequence_length)


def _shorten(modules: dict[str, Any]) -> None:
    """Of the text encoder only the layers that are read: it sees no images, and predicts no words."""
    modules["text_encoder"] = modules["text_encoder"].model.language_model
    cut_layers(modules["text_encoder"], FLUX2_DEV.text_layers)
