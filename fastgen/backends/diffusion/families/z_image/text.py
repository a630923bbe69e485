"""Prompts -> what Z-Image is conditioned on: the last hidden state but one of Qwen3. Does not know which prompts were
seen before."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import Download, upload

LAYER = -2
"""Of all hidden states, as in diffusers' ZImagePipeline."""


@dataclass(frozen=True)
class Prompt:
    embeds: torch.Tensor
    """(tokens that the model reads, cap_feat_dim)."""
    tokens: int
    """Tokens of the whole prompt, before it was cut to the model's length."""

    @property
    def nbytes(self) -> int:
        return self.embeds.nbytes


@torch.inference_mode()
def encode(m: Modules, prompts: list[str], length: int) -> list[Prompt]:
    """One Prompt per text, in order. Not thread-safe, because tokenizers are not."""
    texts = [
        m.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        for prompt in prompts
    ]
    lengths = [len(ids) for ids in m.tokenizer(texts, verbose=False).input_ids]
    tokens = m.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=length)
    with working_on(m.text_device):
        states = m.text_encoder(
            input_ids=upload(tokens.input_ids, m.text_device),
            attention_mask=upload(tokens.attention_mask, m.text_device),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        embeds = cross(states[LAYER].to(m.dtype), m.device)
    if m.parts.large_text in m.away:
        embeds = Download(embeds).wait()
    # The mask is read in main memory, so nothing waits for the device. Clones, because a view would keep the chunk.
    own = [mask.nonzero().flatten() for mask in tokens.attention_mask]
    return [Prompt(e[int(at[0]) : int(at[-1]) + 1].clone(), n) for e, at, n in zip(embeds, own, lengths, strict=True)]
