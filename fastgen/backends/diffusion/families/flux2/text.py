"""Prompts -> what FLUX.2 is conditioned on: hidden states of several layers of a language model, side by side. It is
Qwen3 for klein, and Mistral Small for dev. Does not know which prompts were seen before."""

from __future__ import annotations

import torch

from fastgen.backends.diffusion.families.llm_text import Prompt, asked, hidden_states
from fastgen.backends.diffusion.modules import Modules

LAYERS = (9, 18, 27)
"""After how many layers the hidden states are taken: `text_encoder_out_layers` of diffusers' Flux2KleinPipeline."""
DEV_LAYERS = (10, 20, 30)
"""Those of its Flux2Pipeline."""
SYSTEM = (
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object "
    "relationships, object\nattribution and actions without speculation."
)
"""What FLUX.2-dev's text encoder is told first, from diffusers' Flux2Pipeline."""
IMAGE = "[IMG]"
"""A token of that text encoder, which stands for an image; left out of prompts, as there."""


def encode(m: Modules, prompts: list[str], length: int) -> list[Prompt]:
    """One Prompt per text, in order, for klein. Not thread-safe, because tokenizers are not."""
    return _encode(m, asked(m, prompts, thinking=False), length, LAYERS, adds_tokens=True)


def encode_dev(m: Modules, prompts: list[str], length: int) -> list[Prompt]:
    """The same for dev, whose template has all tokens."""
    return _encode(m, [_described(m, prompt) for prompt in prompts], length, DEV_LAYERS, adds_tokens=False)


def _described(m: Modules, prompt: str) -> str:
    words = {"system": SYSTEM, "user": prompt.replace(IMAGE, "")}
    turns = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in words.items()]
    made: str = m.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False)
    return made


@torch.inference_mode()
def _encode(m: Modules, texts: list[str], length: int, layers: tuple[int, ...], adds_tokens: bool) -> list[Prompt]:
    # Padding counts as text, as the model was trained.
    embeds, _, lengths = hidden_states(m, texts, length, m.text_encoder, layers, "max_length", adds_tokens)
    # Clones, because a view would keep the whole chunk in memory.
    return [Prompt(e.clone(), n) for e, n in zip(embeds, lengths, strict=True)]
