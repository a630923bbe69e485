"""Prompts -> what FLUX.2 klein is conditioned on: hidden states of several layers of Qwen3, side by side. Does not know
which prompts were seen before."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import Download, upload

LAYERS = (9, 18, 27)
"""After how many layers the hidden states are taken: `text_encoder_out_layers` of diffusers' Flux2KleinPipeline."""


@dataclass(frozen=True)
class Prompt:
    embeds: torch.Tensor
    """(max_sequence_length, joint_attention_dim); padding included, as the model was trained."""
    tokens: int
    """Tokens of the whole prompt, before it was cut to the model's length."""

    @property
    def nbytes(self) -> int:
        return self.embeds.nbytes


@torch.inference_mode()
def encode(m: Modules, prompts: list[str], length: int, layers: tuple[int, ...] = LAYERS) -> list[Prompt]:
    """One Prompt per text, in order. Not thread-safe, because tokenizers are not."""
    texts = [
        m.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        for prompt in prompts
    ]
    lengths = [len(ids) for ids in m.tokenizer(texts, verbose=False).input_ids]
    tokens = m.tokenizer(texts, return_tensors="pt", padding="max_length", truncation=True, max_length=length)
    with working_on(m.text_device):
        states = m.text_encoder(
            input_ids=upload(tokens.input_ids, m.text_device),
            attention_mask=upload(tokens.attention_mask, m.text_device),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        embeds = cross(torch.cat([states[layer] for layer in layers], dim=-1).to(m.dtype), m.device)
    if m.parts.large_text in m.away:
        embeds = Download(embeds).wait()
    # Clones, because a view would keep the whole chunk in memory.
    return [Prompt(e.clone(), n) for e, n in zip(embeds, lengths, strict=True)]
