"""Prompts -> what Chroma is conditioned on: the hidden states of T5 for a prompt's tokens and for one of padding. Does
not know which prompts were seen before."""

from __future__ import annotations

import torch

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.families.llm_text import Prompt
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import Download, upload

PADDING = 1
"""Tokens of padding that the transformer sees, as it was trained; nothing attends to the others."""


@torch.inference_mode()
def encode(m: Modules, prompts: list[str], length: int) -> list[Prompt]:
    """One Prompt per text, in order. Not thread-safe, because tokenizers are not."""
    lengths = [len(ids) for ids in m.tokenizer(prompts, verbose=False).input_ids]
    tokens = m.tokenizer(prompts, return_tensors="pt", padding="max_length", truncation=True, max_length=length)
    ids, mask = (upload(one, m.text_device) for one in (tokens.input_ids, tokens.attention_mask))
    with working_on(m.text_device):
        embeds = cross(m.text_encoder(ids, attention_mask=mask)[0].to(m.dtype), m.device)
    if m.parts.large_text in m.away:
        embeds = Download(embeds).wait()
    # Clones, because a view would keep the whole chunk in memory.
    return [Prompt(row[: count + PADDING].clone(), count) for row, count in zip(embeds, lengths, strict=True)]
