"""Prompts -> what Qwen-Image is conditioned on: the last hidden state of Qwen2.5-VL, without the words before the
prompt. Does not know which prompts were seen before."""

from __future__ import annotations

import torch

from fastgen.backends.diffusion.families.llm_text import Prompt, hidden_states
from fastgen.backends.diffusion.modules import Modules

TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""The words around a prompt, from diffusers' QwenImagePipeline."""
BEFORE = 34
"""Tokens of the template before the prompt, which the transformer does not see."""
MOST = 1024
"""Tokens of a prompt and of the template after it."""


@torch.inference_mode()
def encode(m: Modules, prompts: list[str], length: int) -> list[Prompt]:
    """One Prompt per text, in order. Not thread-safe, because tokenizers are not."""
    texts = [TEMPLATE.format(prompt) for prompt in prompts]
    embeds, masks, lengths = hidden_states(m, texts, MOST + BEFORE, m.text_encoder)
    # The mask is read in main memory, so nothing waits for the device. Clones, because a view would keep the chunk.
    made = []
    for row, mask, count in zip(embeds, masks, lengths, strict=True):
        own = mask.nonzero().flatten()
        first, last = int(own[0]) + BEFORE, int(own[-1]) + 1
        made.append(Prompt(row[first : min(last, first + length)].clone(), count - BEFORE))
    return made
