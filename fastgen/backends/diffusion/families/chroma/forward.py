"""Chroma's transformer for samples that are together for several steps. Does not know schedules, or which sample needs
all blocks.

It equals `ChromaTransformer2DModel.forward`, but what is constant over the steps (text projection, positions, the mask)
is computed once, and the last layers run on the image's tokens only. Prompts are filled up to the longest of them;
nothing attends to the filling.
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

SEEN, UNSEEN = 1.0, -250.0
"""In the mask. A block multiplies the mask of queries with that of keys and adds the product to the scores: 1 between
two tokens, and -250 where a token would attend to filling, which leaves nothing of it. Filling attends to filling,
because not every kernel bears rows of scores without any key. All products fit into float16."""
LAST = 2
"""Rows of the modulation for the layers after the blocks, at its end."""


@dataclass(frozen=True)
class Activations:
    """Between two blocks."""

    text: torch.Tensor
    """(B, text tokens, width)."""
    hidden: torch.Tensor
    """(B, image tokens, width)."""
    embedding: torch.Tensor
    """(B, rows, width): timestep, as shifts, scales and gates of all blocks."""
    mask: torch.Tensor | None
    """(B, text tokens + image tokens): what is filling; None if there is none."""

    @property
    def image(self) -> torch.Tensor:
        """(B, image tokens, width)."""
        return self.hidden

    def at(self, device: torch.device) -> Self:
        moved: dict[str, Any] = {name: cross(tensor, device) for name, tensor in self._tensors()}
        return replace(self, **moved)

    def rows(self, rows: torch.Tensor | slice) -> Self:
        some: dict[str, Any] = {name: tensor[rows] for name, tensor in self._tensors()}
        return replace(self, **some)

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        values = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, tensor) for name, tensor in values if tensor is not None]


class Forward(BlockForward[Activations]):
    """Args:
    samples: of one key.
    rope: rotary positions (cos, sin) of the image's tokens; those of the text are all at 0.
    """

    def __init__(self, m: Modules, samples: list[Sample], rope: tuple[torch.Tensor, torch.Tensor]):
        super().__init__(m)
        model = self.transformer
        self._double = len(model.transformer_blocks)
        embeds = [upload(sample.prompt.embeds, self.device) for sample in samples]
        lengths, image = [len(one) for one in embeds], len(samples[0].noise)
        text = torch.nn.utils.rnn.pad_sequence(embeds, batch_first=True)
        time = model.time_text_embed
        still = time.guidance_proj(torch.zeros(len(samples)))
        self.constants: dict[str, torch.Tensor] = {
            "text": model.context_embedder(text),
            "guidance": upload(still, self.device, self.dtype),
            "rows": upload(time.mod_proj, self.device, self.dtype),
        }
        if min(lengths) < max(lengths):
            place = torch.arange(max(lengths) + image)[None, :]
            seen = (place >= max(lengths)) | (place < torch.tensor(lengths)[:, None])
            self.constants["mask"] = upload(torch.where(seen, SEEN, UNSEEN), self.device, self.dtype)
        for number, stage in enumerate(self.stages):
            for name, table, start in zip(("cos", "sin"), rope, (1.0, 0.0), strict=True):
                words = table.new_full((max(lengths), table.shape[1]), start)
                self.constants[f"{name} {number}"] = cross(torch.cat([words, table]), stage.device)

    def begin(self, x: torch.Tensor, timestep: torch.Tensor) -> Activations:
        """Before the first block. x: (B, tokens, 64), float32; timestep: (B,)."""
        known, model = self.constants, self.transformer
        hidden = model.x_embedder(x.to(self.dtype))
        timestep = timestep.to(self.dtype)
        time = torch.cat([model.time_text_embed.time_proj(timestep).to(self.dtype), known["guidance"]], dim=1)
        rows = known["rows"]
        both = torch.cat([time[:, None].expand(-1, rows.shape[0], -1), rows.expand(len(time), -1, -1)], dim=-1)
        return Activations(known["text"], hidden, model.distilled_guidance_layer(both), known.get("mask"))

    def _run(self, at: int, block: Any, stage: int, now: Activations) -> Activations:
        own = {
            "image_rotary_emb": (self.constants[f"cos {stage}"], self.constants[f"sin {stage}"]),
            "attention_mask": now.mask,
        }
        single = len(self._blocks) - self._double
        if at < self._double:
            image, words = (3 * single + 6 * (at + first) for first in (0, self._double))
            rows = [now.embedding[:, start : start + 6] for start in (image, words)]
            text, hidden = block(
                hidden_states=now.hidden, encoder_hidden_states=now.text, temb=torch.cat(rows, dim=1), **own
            )
            return replace(now, text=text, hidden=hidden)
        start = 3 * (at - self._double)
        joined = torch.cat([now.text, now.hidden], dim=1)
        joined = block(hidden_states=joined, temb=now.embedding[:, start : start + 3], **own)
        length = now.text.shape[1]
        return replace(now, text=joined[:, :length], hidden=joined[:, length:])

    def _last(self, image: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        velocity: torch.Tensor = self.transformer.proj_out(self.transformer.norm_out(image, embedding[:, -LAST:]))
        return velocity
