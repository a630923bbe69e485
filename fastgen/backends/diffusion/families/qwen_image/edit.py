"""Qwen-Image-Edit as a `Family`: Qwen-Image whose text encoder and transformer see the images to edit."""

from __future__ import annotations

import math

import torch

from fastgen.backends.diffusion.families.qwen_image import family, seen
from fastgen.backends.diffusion.families.qwen_image.family import QwenImage
from fastgen.backends.diffusion.families.qwen_image.text import Prompt
from fastgen.backends.diffusion.modules import Modules
from fastgen.config.families import QWEN_IMAGE_EDIT
from fastgen.config.settings import Settings

SEVERAL = "QwenImageEditPlusPipeline"
"""The pipeline of the versions that take several images, each with a number."""
CONDITION_PIXELS = 384 * 384
"""How large their text encoder sees each image; the first version sees it as large as its transformer does."""
GRID = 32


class QwenImageEdit(QwenImage):
    """Args:
    max_sequence_length: tokens of a prompt.
    numbered: whether it takes several images.
    condition_pixels: of an image as the text encoder reads it.
    """

    def __init__(self, modules: Modules, max_sequence_length: int, numbered: bool, condition_pixels: int):
        super().__init__(modules, max_sequence_length)
        self.numbered = numbered
        self.condition_pixels = condition_pixels

    def encode_seen(self, prompts: list[seen.Seen]) -> list[Prompt]:
        return seen.encode(self.modules, prompts, self.max_sequence_length, self.numbered)

    def condition_size(self, size: tuple[int, int]) -> tuple[int, int]:
        width = math.sqrt(self.condition_pixels * size[0] / size[1])
        height = width * size[1] / size[0]
        return max(GRID, round(width / GRID) * GRID), max(GRID, round(height / GRID) * GRID)


def load(settings: Settings, device: torch.device) -> QwenImageEdit:
    """The model of the settings; see `families/parts.py`. Raises ModelError."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    # Always this processor, so that images do not depend on whether torchvision is installed.
    modules = family.load_modules(
        settings,
        device,
        QWEN_IMAGE_EDIT,
        lambda folder: {"processor": folder.processor("processor", Qwen2VLImageProcessorPil)},
    )
    numbered = settings.model.pipeline == SEVERAL
    pixels = CONDITION_PIXELS if numbered else settings.model.defaults.reference_pixels
    return QwenImageEdit(modules, settings.engine.max_sequence_length, numbered, pixels)
