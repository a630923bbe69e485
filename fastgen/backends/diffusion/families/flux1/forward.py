"""FLUX.1's transformer for samples that are together for several steps. Does not know schedules, or which sample needs
all blocks.

It equals `FluxTransformer2DModel.forward`, but what is constant over the steps (text projection, positions, reference
tokens) is computed once, and the last layers run on the image's tokens only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import upload
from fastgen.opt.base import Stage
from fastgen.opt.ulysses import attend_over


@dataclass(frozen=True)
class Activations:
    """Between two blocks."""

    text: torch.Tensor
    """(B, text tokens, width). With --parallel context here and below: this process's tokens only."""
    hidden: torch.Tensor
    """(B, image tokens and reference tokens, width)."""
    embedding: torch.Tensor
    """(B, width): timestep, guidance and pooled prompt."""
    tokens: int
    """Image tokens."""

    @property
    def image(self) -> torch.Tensor:
        """(B, image tokens, width)."""
        return self.hidden[:, : self.tokens]

    def at(self, device: torch.device) -> Activations:
        """The same on another device."""
        text, hidden, embedding = (cross(tensor, device) for tensor in (self.text, self.hidden, self.embedding))
        return Activations(text, hidden, embedding, self.tokens)

    def rows(self, rows: torch.Tensor | slice) -> Activations:
        return Activations(self.text[rows], self.hidden[rows], self.embedding[rows], self.tokens)


class Forward:
    """Args:
    samples: of one key.
    guidance: (B,), float32, on the device.
    rope: rotary positions (cos, sin) of text, image and reference tokens.
    """

    def __init__(
        self,
        modules: Modules,
        samples: list[Sample],
        guidance: torch.Tensor,
        rope: tuple[torch.Tensor, torch.Tensor],
    ):
        self.transformer, self.dtype = modules.transformer, modules.dtype
        device = self.device = modules.device
        self.end_device = modules.end_device
        self.stages = modules.stages or (Stage(device, 0, len(all_blocks(modules.transformer))),)
        ranks = self.ranks = modules.ranks
        embeds = torch.stack([upload(s.prompt.embeds, device) for s in samples])
        before = embeds.shape[1], samples[0].noise.shape[0]
        self.lengths = (*before, rope[0].shape[0] - sum(before))
        """Tokens of text, image and reference, of all processes."""
        if ranks.count > 1:
            cos, sin = (torch.cat([ranks.part(one, 0) for one in table.split(self.lengths)]) for table in rope)
            rope = (cos, sin)
        self.constants: dict[str, torch.Tensor] = {
            "pooled": torch.stack([upload(s.prompt.pooled, device) for s in samples]),
            "text": self.transformer.context_embedder(ranks.part(embeds, 1)),
        }
        for number, stage in enumerate(self.stages):
            self.constants |= {
                f"{name} {number}": cross(x, stage.device) for name, x in zip(("cos", "sin"), rope, strict=True)
            }
        if self.transformer.config.guidance_embeds:
            self.constants["guidance"] = guidance.to(self.dtype) * 1000
        if samples[0].reference is not None:
            references = torch.stack([s.reference for s in samples if s.reference is not None])
            self.constants["reference"] = self.transformer.x_embedder(ranks.part(references, 1).to(self.dtype))

    def begin(self, x: torch.Tensor, timestep: torch.Tensor) -> Activations:
        """Before the first block. x: (B, tokens, 64), float32; timestep: (B,)."""
        known = self.constants
        guidance = (known["guidance"],) if "guidance" in known else ()
        embedding = self.transformer.time_text_embed(timestep, *guidance, known["pooled"])
        hidden = self.transformer.x_embedder(self.ranks.part(x, 1).to(self.dtype))
        tokens = hidden.shape[1]
        if "reference" in known:
            hidden = torch.cat([hidden, known["reference"]], dim=1)
        return Activations(known["text"], hidden, embedding, tokens)

    def blocks(self, activations: Activations, start: int, stop: int | None = None) -> Activations:
        """After the blocks start:stop, double-stream blocks first; on the device of the last of them."""
        blocks = all_blocks(self.transformer)
        stop = len(blocks) if stop is None else stop
        if self.ranks.count > 1:
            attend_over(self.ranks, self.lengths)
        for number, stage in enumerate(self.stages):
            own = blocks[max(start, stage.start) : min(stop, stage.stop)]
            if not own:
                continue
            activations = activations.at(stage.device)
            text, hidden = activations.text, activations.hidden
            rope = (self.constants[f"cos {number}"], self.constants[f"sin {number}"])
            with working_on(stage.device):
                for block in own:
                    text, hidden = block(
                        hidden_states=hidden,
                        encoder_hidden_states=text,
                        temb=activations.embedding,
                        image_rotary_emb=rope,
                    )
            activations = Activations(text, hidden, activations.embedding, activations.tokens)
        return activations

    def back(self, image: torch.Tensor) -> torch.Tensor:
        return cross(image, self.device)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        return self.ranks.total(values)

    def end(self, image: torch.Tensor, activations: Activations) -> torch.Tensor:
        """The velocity (B, tokens, 64)."""
        image, embedding = cross(image, self.end_device), cross(activations.embedding, self.end_device)
        with working_on(self.end_device):
            velocity = self.transformer.proj_out(self.transformer.norm_out(image, embedding))
        return self.ranks.whole(cross(velocity, self.device), self.lengths[1])


def all_blocks(transformer: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    """In the order in which they run."""
    model: Any = transformer  # PyTorch's stubs do not know what attributes of modules are
    return (*model.transformer_blocks, *model.single_transformer_blocks)
