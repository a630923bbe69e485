"""A FLUX.1 folder in diffusers format -> Modules."""

from __future__ import annotations

import torch

from fastgen.backends.diffusion.families import parts
from fastgen.backends.diffusion.modules import Modules
from fastgen.config.families import FLUX1
from fastgen.config.settings import Settings


def load(settings: Settings, device: torch.device) -> Modules:
    """See `families/parts.py`. Raises ModelError."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel

    classes = {
        "transformer": FluxTransformer2DModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": T5EncoderModel,
    }
    return parts.load(settings, device, FLUX1, classes)
