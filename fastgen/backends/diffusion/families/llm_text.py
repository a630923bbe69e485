"""Texts -> hidden states of a language model, for the families whose text encoder is one. Does not know templates, or
which layers a family reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import Download, upload


@dataclass(frozen=True)
class Prompt:
    embeds: torch.Tensor
    """(tokens that the transformer reads, width of its text)."""
    tokens: int
    """Tokens of the whole prompt, before it was cut to the model's length."""

    @property
    def nbytes(self) -> int:
        return self.embeds.nbytes


def hidden_states(
    m: Modules,
    texts: list[str],
    length: int,
    read: Callable[[tuple[torch.Tensor, ...]], torch.Tensor],
    padding: bool | str = True,
    **more: Any,
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """What `read` takes from the hidden states (B, tokens, width), in main memory if the encoder must make way; the
    attention mask (B, tokens), in main memory; and how many tokens each text has before it is cut to `length`.

    Not thread-safe, because tokenizers are not. `more`: further arguments of the model.
    """
    lengths = [len(ids) for ids in m.tokenizer(texts, verbose=False).input_ids]
    tokens = m.tokenizer(texts, return_tensors="pt", padding=padding, truncation=True, max_length=length)
    with working_on(m.text_device):
        states = m.text_encoder(
            input_ids=upload(tokens.input_ids, m.text_device),
            attention_mask=upload(tokens.attention_mask, m.text_device),
            output_hidden_states=True,
            use_cache=False,
            **more,
        ).hidden_states
        embeds = cross(read(states).to(m.dtype), m.device)
    if m.parts.large_text in m.away:
        embeds = Download(embeds).wait()
    return embeds, tokens.attention_mask, lengths


def asked(m: Modules, prompts: list[str], thinking: bool) -> list[str]:
    """Each prompt as a user's turn of the model's chat template."""
    return [
        m.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
        for prompt in prompts
    ]
