"""FLUX.2's transformer for samples that are together for several steps. Does not know schedules, or which sample needs
all blocks.

It equals `Flux2Transformer2DModel.forward`, but what is constant over the steps (text projection, positions, reference
tokens) is computed once, and the last layers run on the image's tokens only.
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
    """(B, width): timestep and guidance."""
    of_image: torch.Tensor
    """(B, 6 * width): shifts, scales and gates of the double-stream blocks for images."""
    of_text: torch.Tensor
    """(B, 6 * width): those for the text."""
    of_both: torch.Tensor
    """(B, 3 * width): those of the single-stream blocks."""
    tokens: int
    """Image tokens."""
    row: torch.Tensor | None = None
    """(B,): which of the samples these are, for what is not passed on from block to block; None if nothing is."""

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
    """Args:
    samples: of one key.
    guidance: (B,), float32, on the device.
    rope: rotary positions (cos, sin) of text, image and reference tokens.
    """

    def __init__(
        self, m: Modules, samples: list[Sample], guidance: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor]
    ):
        super().__init__(m)
        self._double = len(m.transformer.transformer_blocks)
        embeds = torch.stack([upload(s.prompt.embeds, self.device) for s in samples])
        self.constants: dict[str, torch.Tensor] = {"text": self.transformer.context_embedder(embeds)}
        for number, stage in enumerate(self.stages):
            self.constants |= {
                f"{name} {number}": cross(x, stage.device) for name, x in zip(("cos", "sin"), rope, strict=True)
            }
        if self.transformer.config.guidance_embeds:
            self.constants["guidance"] = guidance.to(self.dtype) * 1000
        if samples[0].reference is not None:
            references = torch.stack([s.reference for s in samples if s.reference is not None])
            self.constants["reference"] = self.transformer.x_embedder(references.to(self.dtype))

    def begin(self, x: torch.Tensor, timestep: torch.Tensor) -> Activations:
        """Before the first block. x: (B, tokens, C), float32; timestep: (B,)."""
        hidden = self.transformer.x_embedder(x.to(self.dtype))
        tokens = hidden.shape[1]
        if "reference" in self.constants:
            hidden = torch.cat([hidden, self.constants["reference"]], dim=1)
        return self._before(self.constants["text"], hidden, timestep, tokens)

    def _before(self, text: torch.Tensor, hidden: torch.Tensor, timestep: torch.Tensor, tokens: int) -> Activations:
        model = self.transformer
        embedding = model.time_guidance_embed(timestep.to(self.dtype), self.constants.get("guidance"))
        return Activations(
            text,
            hidden,
            embedding,
            model.double_stream_modulation_img(embedding),
            model.double_stream_modulation_txt(embedding),
            model.single_stream_modulation(embedding),
            tokens,
        )

    def _rope(self, stage: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.constants[f"cos {stage}"], self.constants[f"sin {stage}"]

    def _attention(self, at: int, now: Activations) -> dict[str, Any] | None:
        """What the attention of a block gets besides."""
        return None

    def _run(self, at: int, block: Any, stage: int, now: Activations) -> Activations:
        rope, more = self._rope(stage), self._attention(at, now)
        if at < self._double:
            text, hidden = block(
                hidden_states=now.hidden,
                encoder_hidden_states=now.text,
                temb_mod_img=now.of_image,
                temb_mod_txt=now.of_text,
                image_rotary_emb=rope,
                joint_attention_kwargs=more,
            )
        else:
            text, hidden = block(
                hidden_states=now.hidden,
                encoder_hidden_states=now.text,
                temb_mod=now.of_both,
                image_rotary_emb=rope,
                joint_attention_kwargs=more,
                split_hidden_states=True,
            )
        return replace(now, text=text, hidden=hidden)
