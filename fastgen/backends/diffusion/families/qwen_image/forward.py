"""Qwen-Image's transformer for samples that are together for several steps. Does not know schedules, or which sample
needs all blocks.

It equals `QwenImageTransformer2DModel.forward`, but what is constant over the steps (text projection, positions,
reference tokens) is computed once, and the last layers run on the image's tokens only. Prompts are filled up to the
longest of them; nothing attends to the filling.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
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
    """(B, image tokens and reference tokens, width)."""
    embedding: torch.Tensor
    """(B, width): timestep."""
    mask: torch.Tensor | None
    """(B, text tokens) of bool: what is not filling; None if there is none."""
    still: torch.Tensor | None
    """(B, width): timestep 0, which the reference tokens have in some models; None in the others."""
    tokens: int
    """Image tokens."""

    @property
    def image(self) -> torch.Tensor:
        """(B, image tokens, width)."""
        return self.hidden[:, : self.tokens]

    def at(self, device: torch.device) -> Self:
        moved: dict[str, Any] = {name: cross(tensor, device) for name, tensor in self._tensors()}
        return replace(self, **moved)

    def rows(self, rows: torch.Tensor | slice) -> Self:
        some: dict[str, Any] = {name: tensor[rows] for name, tensor in self._tensors()}
        return replace(self, **some)

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        values = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "tokens"]
        return [(name, tensor) for name, tensor in values if tensor is not None]


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
        first = samples[0]
        sizes = [(first.width, first.height), *first.reference_sizes]
        shape = [[(1, height // 16, width // 16) for width, height in sizes]]
        still = torch.zeros(1, sum(h * w for _, h, w in shape[0]), dtype=torch.int32)
        still[:, len(first.noise) :] = 1
        for number, stage in enumerate(self.stages):
            image, words = model.pos_embed(shape, max_txt_seq_len=max(lengths), device=stage.device)
            self.constants |= {f"image rope {number}": image, f"text rope {number}": words}
            if model.zero_cond_t:
                self.constants[f"still {number}"] = upload(still, stage.device)
        if first.reference is not None:
            references = torch.stack([sample.reference for sample in samples if sample.reference is not None])
            self.constants["reference"] = model.img_in(references.to(self.dtype))

    def begin(self, x: torch.Tensor, timestep: torch.Tensor) -> Activations:
        """Before the first block. x: (B, tokens, 64), float32; timestep: (B,)."""
        known, model = self.constants, self.transformer
        hidden = model.img_in(x.to(self.dtype))
        timestep, tokens = timestep.to(self.dtype), hidden.shape[1]
        embedding = model.time_text_embed(timestep, hidden)
        still = model.time_text_embed(timestep * 0, hidden) if model.zero_cond_t else None
        if "reference" in known:
            hidden = torch.cat([hidden, known["reference"]], dim=1)
        return Activations(known["text"], hidden, embedding, known.get("mask"), still, tokens)

    def _run(self, at: int, block: Any, stage: int, now: Activations) -> Activations:
        text, hidden = block(
            hidden_states=now.hidden,
            encoder_hidden_states=now.text,
            encoder_hidden_states_mask=now.mask,
            temb=now.embedding if now.still is None else torch.cat([now.embedding, now.still]),
            image_rotary_emb=(self.constants[f"image rope {stage}"], self.constants[f"text rope {stage}"]),
            modulate_index=self.constants.get(f"still {stage}"),
        )
        return replace(now, text=text, hidden=hidden)
