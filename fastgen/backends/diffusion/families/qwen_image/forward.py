"""Qwen-Image's transformer for samples that are together for several steps. Does not know schedules, or which sample
needs all blocks.

It equals `QwenImageTransformer2DModel.forward`, but what is constant over the steps (text projection, positions) is
computed once, and the last layers run on the image's tokens only. Prompts are filled up to the longest of them; nothing
attends to the filling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from fastgen.backends.diffusion.borders import cross
from fastgen.backends.diffusion.families.block_forward import BlockForward
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import upload


@dataclass(frozen=True)
class Activations:
    """Between two blocks."""

    text: torch.Tensor
    """(B, text tokens, width)."""
    hidden: torch.Tensor
    """(B, image tokens, width)."""
    embedding: torch.Tensor
    """(B, width): timestep."""
    mask: torch.Tensor | None
    """(B, text tokens) of bool: what is not filling; None if there is none."""

    @property
    def image(self) -> torch.Tensor:
        """(B, image tokens, width)."""
        return self.hidden

    def at(self, device: torch.device) -> Self:
        text, hidden, embedding = (cross(x, device) for x in (self.text, self.hidden, self.embedding))
        mask = cross(self.mask, device) if self.mask is not None else None
        return replace(self, text=text, hidden=hidden, embedding=embedding, mask=mask)

    def rows(self, rows: torch.Tensor | slice) -> Self:
        mask = self.mask[rows] if self.mask is not None else None
        return replace(self, text=self.text[rows], hidden=self.hidden[rows], embedding=self.embedding[rows], mask=mask)


class Forward(BlockForward[Activations]):
    """Args: samples: of one key."""

    def __init__(self, m: Modules, samples: list[Sample]):
        super().__init__(m)
        embeds = [upload(sample.prompt.embeds, self.device) for sample in samples]
        lengths = [len(one) for one in embeds]
        text = torch.nn.utils.rnn.pad_sequence(embeds, batch_first=True)
        model = self.transformer
        self.constants: dict[str, torch.Tensor] = {"text": model.txt_in(model.txt_norm(text))}
        if min(lengths) < max(lengths):
            mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
            self.constants["mask"] = upload(mask, self.device)
        shape = [[(1, samples[0].height // 16, samples[0].width // 16)]]
        for number, stage in enumerate(self.stages):
            image, words = model.pos_embed(shape, max_txt_seq_len=max(lengths), device=stage.device)
            self.constants |= {f"image rope {number}": image, f"text rope {number}": words}

    def begin(self, x: torch.Tensor, timestep: torch.Tensor) -> Activations:
        """Before the first block. x: (B, tokens, 64), float32; timestep: (B,)."""
        known, model = self.constants, self.transformer
        hidden = model.img_in(x.to(self.dtype))
        embedding = model.time_text_embed(timestep.to(self.dtype), hidden)
        return Activations(known["text"], hidden, embedding, known.get("mask"))

    def _run(self, at: int, block: Any, stage: int, now: Activations) -> Activations:
        text, hidden = block(
            hidden_states=now.hidden,
            encoder_hidden_states=now.text,
            encoder_hidden_states_mask=now.mask,
            temb=now.embedding,
            image_rotary_emb=(self.constants[f"image rope {stage}"], self.constants[f"text rope {stage}"]),
        )
        return replace(now, text=text, hidden=hidden)
