"""Prompts with the images that they are about -> what Qwen-Image-Edit is conditioned on: the last hidden state of
Qwen2.5-VL, without the words before them. Does not know sizes, or which prompts were seen before.

Each prompt goes alone through the encoder, which images keep busy. So it is the same in any batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.families.llm_text import Prompt
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import Download, upload

BEFORE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\n"
)
IMAGE = "<|image_pad|>"
PLACE = f"<|vision_start|>{IMAGE}<|vision_end|>"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
"""The words around a prompt, from diffusers' QwenImageEditPipeline."""
LEFT_OUT = 64
"""Tokens at the beginning that the transformer does not see."""


@torch.inference_mode()
def encode(m: Modules, text: str, images: tuple[Image.Image, ...], length: int, numbered: bool) -> Prompt:
    """Not thread-safe, because tokenizers are not.

    Args:
        images: as the processor is to get them.
        length: most tokens of the text.
        numbered: whether each image has a number that the text can use.
    """
    seen = m.processor(list(images), return_tensors="pt")
    per_token = m.processor.merge_size**2
    places = ""
    for number, grid in enumerate(seen["image_grid_thw"], 1):
        place = PLACE.replace(IMAGE, IMAGE * (int(grid.prod()) // per_token))
        places += f"Picture {number}: {place}" if numbered else place
    own = _ids(m, text)
    ids = torch.tensor([[*_ids(m, BEFORE + places), *own[:length], *_ids(m, AFTER)]])
    # The encoder takes the positions of images from this. diffusers 0.42 leaves it out, and then counts images as text
    # if transformers is 5 (huggingface/diffusers issue 14194); the model was trained with it.
    kinds = (ids == m.text_encoder.config.image_token_id).int()
    arguments: dict[str, Any] = {"input_ids": ids, "mm_token_type_ids": kinds, "attention_mask": torch.ones_like(ids)}
    arguments |= {name: torch.as_tensor(np.asarray(seen[name])) for name in ("pixel_values", "image_grid_thw")}
    with working_on(m.text_device):
        states = m.text_encoder(
            **{name: upload(value, m.text_device) for name, value in arguments.items()},
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,
        ).hidden_states
        embeds = cross(states[-1][0, LEFT_OUT:].to(m.dtype), m.device)
    if m.parts.large_text in m.away:
        embeds = Download(embeds).wait()
    return Prompt(embeds.clone(), len(own))


def _ids(m: Modules, text: str) -> list[int]:
    ids: list[int] = m.tokenizer(text, verbose=False).input_ids
    return ids
