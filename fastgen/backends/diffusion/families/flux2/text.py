"""Prompts -> what FLUX.2 klein is conditioned on: hidden states of several layers of Qwen3, side by side. Does not know
which prompts were seen before."""

from __future__ import annotations

import torch

from fastgen.backends.diffusion.families.llm_text import Prompt, asked, hidden_states
from fastgen.backends.diffusion.modules import Modules

LAYERS = (9, 18, 27)
"""After how many layers the hidden states are taken: `text_encoder_out_layers` of diffusers' Flux2KleinPipeline."""


@torch.inference_mode()
def encode(m: Modules, prompts: list[str], length: int, layers: tuple[int, ...] = LAYERS) -> list[Prompt]:
    """One Prompt per text, in order. Not thread-safe, because tokenizers are not."""
    embeds, _, lengths = hidden_states(
        m,
        asked(m, prompts, thinking=False),
        length,
        m.text_encoder,
        layers,
        "max_length",  # padding included, as the model was trained
    )
    # Clones, because a view would keep the whole chunk in memory.
    return [Prompt(e.clone(), n) for e, n in zip(embeds, lengths, strict=True)]
