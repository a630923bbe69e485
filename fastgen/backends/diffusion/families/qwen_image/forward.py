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

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.families import patches
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import upload
from fastgen.opt.base import blocks_of


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


class Forward:
    """Args: samples: of one key."""

    def __init__(self, m: Modules, samples: list[Sample]):
        self.transformer, self.dtype = m.transformer, m.dtype
        self.device, self.end_device = m.device, m.end_device
        self._blocks = [block for _, block in blocks_of(m)]
        self.stages = patches.stages_of(m, self._blocks)
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

    def blocks(self, activations: Activations, start: int, stop: int | None = None) -> Activations:
        """After the blocks start:stop; on the device of the last of them."""
        return patches.through(self.stages, self._blocks, activations, start, stop, self._run)

    def _run(self, at: int, block: Any, stage: int, now: Activations) -> Activations:
        text, hidden = block(
            hidden_states=now.hidden,
            encoder_hidden_states=now.text,
            encoder_hidden_states_mask=now.mask,
            temb=now.embedding,
            image_rotary_emb=(self.constants[f"image rope {stage}"], self.constants[f"text rope {stage}"]),
        )
        return replace(now, text=text, hidden=hidden)

    def back(self, image: torch.Tensor) -> torch.Tensor:
        return cross(image, self.device)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        return values  # one device has all tokens

    def end(self, image: torch.Tensor, activations: Activations) -> torch.Tensor:
        """The velocity (B, tokens, 64)."""
        image, embedding = cross(image, self.end_device), cross(activations.embedding, self.end_device)
        with working_on(self.end_device):
            velocity = self.transformer.proj_out(self.transformer.norm_out(image, embedding))
        return cross(velocity, self.device)
