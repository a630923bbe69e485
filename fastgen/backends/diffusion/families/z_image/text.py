"""Prompts -> what Z-Image is conditioned on: the last hidden state but one of Qwen3. Does not know which prompts were
seen before."""

from __future__ import annotations

import torch

from fastgen.backends.diffusion.families.llm_text import Prompt, asked, hidden_states
from fastgen.backends.diffusion.modules import Modules

LAYER = -1
"""What goes into the last layer: the last hidden state but one, as in diffusers' ZImagePipeline."""


@torch.inference_mode()
def encode(m: Modules, prompts: list[str], length: int) -> list[Prompt]:
    """One Prompt per text, in order. Not thread-safe, because tokenizers are not."""
    texts = asked(m, prompts, thinking=True)
    embeds, masks, lengths = hidden_states(m, texts, length, m.text_encoder, (LAYER,))
    # The mask is read in main memory, so nothing waits for the device. Clones, because a view would keep the chunk.
    own = [mask.nonzero().flatten() for mask in masks]
    return [Prompt(e[int(at[0]) : int(at[-1]) + 1].clone(), n) for e, at, n in zip(embeds, own, lengths, strict=True)]
