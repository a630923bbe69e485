"""Prompts with the images that they are about -> what Qwen-Image-Edit is conditioned on: the last hidden state of
Qwen2.5-VL, without the words before them. Does not know sizes, or which prompts were seen before.

Each prompt goes alone through the encoder, which images keep busy. So it is the same in any batch.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

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


Seen = tuple[str, tuple[Image.Image, ...]]
"""A text, and its images as the processor is to get them."""


@torch.inference_mode()
def encode(m: Modules, prompts: list[Seen], length: int, numbered: bool) -> list[Prompt]:
    """One Prompt per text, in order. Not thread-safe, because tokenizers are not.

    Args:
        length: most tokens of the text.
        numbered: whether each image has a number that the text can use.
    """
    made = [_encode(m, text, images, length, numbered) for text, images in prompts]
    if m.parts.large_text in m.away:  # one wait for all of them
        states = Download(torch.cat([prompt.embeds for prompt in made])).wait()
        parts = states.split([len(prompt.embeds) for prompt in made])
        return [Prompt(part.clone(), prompt.tokens) for part, prompt in zip(parts, made, strict=True)]
    return made


def _encode(m: Modules, text: str, images: tuple[Image.Image, ...], length: int, numbered: bool) -> Prompt:
    seen = m.processor(list(images), return_tensors="pt")
    pixels, grid = (torch.as_tensor(np.asarray(seen[name])) for name in ("pixel_values", "image_grid_thw"))
    places = ""
    for number, size in enumerate(grid, 1):
        place = PLACE.replace(IMAGE, IMAGE * (int(size.prod()) // m.processor.merge_size**2))
        places += f"Picture {number}: {place}" if numbered else place
    own = _ids(m, text)
    ids = torch.tensor([[*_ids(m, BEFORE + places), *own[:length], *_ids(m, AFTER)]])
    of_image = ids == m.text_encoder.config.image_token_id
    # The positions of images come from the kind of each token. diffusers 0.42 leaves it out, and then counts images as
    # text if transformers is 5 (huggingface/diffusers issue 14194); the model was trained with it.
    positions, _ = m.text_encoder.get_rope_index(ids, mm_token_type_ids=of_image.int(), image_grid_thw=grid)
    words, there = m.text_encoder.language_model, m.text_device
    with working_on(there):
        embeds = words.get_input_embeddings()(upload(ids, there))
        looks = _look(m, pixels, grid).to(embeds.dtype)
        embeds = embeds.index_copy(1, upload(of_image[0].nonzero().flatten(), there), looks[None])
        states = words(inputs_embeds=embeds, position_ids=upload(positions, there), use_cache=False).last_hidden_state
        return Prompt(cross(states[0, LEFT_OUT:].to(m.dtype), m.device).clone(), len(own))


def _look(m: Modules, pixels: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """The images as tokens (tokens, width of the language model), on its device.

    Where each patch is and what it attends to is counted in main memory. transformers would read it back from the
    device for every layer.

    Args:
        pixels, grid: what the processor says, in main memory.
    """
    visual = m.text_encoder.visual
    config = visual.config
    merge = config.spatial_merge_size
    windows, edges = get_vision_window_index(grid, merge, config.window_size, config.patch_size)
    looks: torch.Tensor = visual(
        upload(pixels, m.text_device, visual.dtype),
        grid_thw=grid,
        position_ids=upload(get_vision_position_ids(grid, merge), m.text_device),
        window_index=upload(windows, m.text_device),
        cu_window_seqlens=edges,
    ).pooler_output
    return looks


def _ids(m: Modules, text: str) -> list[int]:
    ids: list[int] = m.tokenizer(text, verbose=False).input_ids
    return ids
