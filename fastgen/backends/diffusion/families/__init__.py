"""The model families that the engine can run, one folder each. See `backends/diffusion/family.py` for what they
answer."""

from __future__ import annotations

from importlib import import_module

import torch

from fastgen.backends.diffusion.family import Family
from fastgen.config.settings import Settings

FAMILIES = {
    "flux": "fastgen.backends.diffusion.families.flux1.family",
    "flux2": "fastgen.backends.diffusion.families.flux2.family",
    "flux2_kept": "fastgen.backends.diffusion.families.flux2.kept",
    "flux2_dev": "fastgen.backends.diffusion.families.flux2.dev",
    "chroma": "fastgen.backends.diffusion.families.chroma.family",
    "z_image": "fastgen.backends.diffusion.families.z_image.family",
    "qwen_image": "fastgen.backends.diffusion.families.qwen_image.family",
    "qwen_image_edit": "fastgen.backends.diffusion.families.qwen_image.edit",
}
"""`ModelCard.family` -> the module with its `load(settings, device) -> Family`."""


def load(settings: Settings, device: torch.device) -> Family:
    """Load the model of the settings, to run on `device`. Raises ModelError: a file is missing, damaged or does not
    fit; the message names the file."""
    return import_module(FAMILIES[settings.model.family]).load(settings, device)
