"""Prompts -> what FLUX.1 is conditioned on, through CLIP and T5. Does not know which prompts were seen before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import Download, upload


@dataclass(frozen=True)
class Prompt:
    embeds: torch.Tensor
    """(max_sequence_length, joint_attention_dim), the T5 hidden states; padding included, as FLUX was trained."""
    pooled: torch.Tensor
    """(pooled_projection_dim,), from CLIP."""
    tokens: int
    """T5 tokens of the whole prompt, before it was cut to the model's length."""

    @property
    def nbytes(self) -> int:
        return self.embeds.nbytes


@torch.inference_mode()
def encode(m: Modules, prompts: list[str], max_sequence_length: int) -> list[Prompt]:
    """One Prompt per text, in order. Not thread-safe, because tokenizers are not."""
    clip_ids, _ = _tokenize(m, m.tokenizer, prompts, m.tokenizer.model_max_length)
    t5_ids, lengths = _tokenize(m, m.tokenizer_2, prompts, max_sequence_length)
    with working_on(m.text_device):
        pooled = cross(m.text_encoder(clip_ids).pooler_output.to(m.dtype), m.device)
        embeds = cross(m.text_encoder_2(t5_ids)[0].to(m.dtype), m.device)
    if m.parts.large_text in m.away:
        # One wait for each of the two, however many prompts there are.
        embeds, pooled = (copy.wait() for copy in (Download(embeds), Download(pooled)))
    # Clones, because a view would keep the whole chunk in memory.
    return [Prompt(e.clone(), p.clone(), n) for e, p, n in zip(embeds, pooled, lengths, strict=True)]


def _tokenize(m: Modules, tokenizer: Any, prompts: list[str], length: int) -> tuple[torch.Tensor, list[int]]:
    """Token ids (len(prompts), length), padded and cut off, and the original lengths."""
    ids = tokenizer(prompts, padding=False, truncation=False, verbose=False).input_ids
    end = tokenizer.eos_token_id
    rows = [row if len(row) <= length else [*row[: length - 1], end] for row in ids]
    rows = [row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]
    return upload(torch.tensor(rows), m.text_device), [len(row) for row in ids]
