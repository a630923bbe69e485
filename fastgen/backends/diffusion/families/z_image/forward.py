"""Z-Image's transformer for samples of any sizes that are together for several steps. Does not know schedules, or which
sample needs all blocks.

It equals `ZImageTransformer2DModel.forward`, but what is constant over the steps (the refined prompt, positions) is
computed once, and the last layer runs on the image's tokens only. A sample's row has its image's tokens, the model's
own padding to a multiple of 32, and filling up to the longest image; then its prompt with the same two. Nothing attends
to the filling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from fastgen.backends.diffusion.borders import cross, working_on
from fastgen.backends.diffusion.families.block_forward import BlockForward
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import upload

MULTIPLE = 32
"""Images and prompts are padded to a multiple of this many tokens; the model attends to that padding."""
PATCH = "2-1"
"""The name of the layers for patches of 2x2 of one frame."""


@dataclass(frozen=True)
class Activations:
    """Between two blocks."""

    hidden: torch.Tensor
    """(B, image's and prompt's tokens, width)."""
    embedding: torch.Tensor
    """(B, width of the embedding): timestep."""
    rope: torch.Tensor
    """(B, tokens, half a head), complex: positions."""
    mask: torch.Tensor | None
    """(B, tokens) of bool: what is not filling; None if there is none."""
    tokens: int
    """Image tokens of the largest image."""

    @property
    def image(self) -> torch.Tensor:
        """(B, image tokens, width)."""
        return self.hidden[:, : self.tokens]

    def at(self, device: torch.device) -> Self:
        mask = cross(self.mask, device) if self.mask is not None else None
        hidden, embedding, rope = (cross(x, device) for x in (self.hidden, self.embedding, self.rope))
        return replace(self, hidden=hidden, embedding=embedding, rope=rope, mask=mask)

    def rows(self, rows: torch.Tensor | slice) -> Self:
        mask = self.mask[rows] if self.mask is not None else None
        return replace(self, hidden=self.hidden[rows], embedding=self.embedding[rows], rope=self.rope[rows], mask=mask)


class Forward(BlockForward[Activations]):
    """Args: samples: of one key."""

    def __init__(self, m: Modules, samples: list[Sample]):
        super().__init__(m)
        self.tokens = max(_tokens(sample) for sample in samples)
        prompts, prompt_ids, prompt_mask = self._lay_out_prompts(samples)
        image_ids, image_mask, self.constants = self._lay_out_images(samples)
        rope = self.transformer.rope_embedder
        with working_on(self.device):
            image_rope = rope(image_ids.flatten(0, 1)).unflatten(0, image_ids.shape[:2])
            prompt_rope = rope(prompt_ids.flatten(0, 1)).unflatten(0, prompt_ids.shape[:2])
            mask = None if bool(prompt_mask.all()) else upload(prompt_mask, self.device)
            for layer in self.transformer.context_refiner:
                prompts = layer(prompts, mask, prompt_rope)
        self.constants |= {"prompts": prompts, "image rope": image_rope}
        self.constants["rope"] = torch.cat([image_rope, prompt_rope], dim=1)
        if not bool(image_mask.all()):
            self.constants["image mask"] = upload(image_mask, self.device)
        if not bool(image_mask.all() and prompt_mask.all()):
            self.constants["mask"] = upload(torch.cat([image_mask, prompt_mask], dim=1), self.device)

    def _lay_out_prompts(self, samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Prompts (B, tokens, width), embedded; their positions (B, tokens, 3) on the device; and which tokens are not
        filling (B, tokens), in main memory."""
        lengths = [len(sample.prompt.embeds) for sample in samples]
        longest = max(map(_padded, lengths))
        ids = torch.zeros(len(samples), longest, 3, dtype=torch.int32)
        mask = torch.zeros(len(samples), longest, dtype=torch.bool)
        own = torch.zeros(len(samples), longest, dtype=torch.bool)
        for row, length in enumerate(lengths):
            ids[row, : _padded(length), 0] = torch.arange(1, _padded(length) + 1)
            mask[row, : _padded(length)] = True
            own[row, :length] = True
        embedder, pad = self.transformer.cap_embedder, self.transformer.cap_pad_token
        embeds = [embedder(upload(sample.prompt.embeds, self.device)) for sample in samples]
        filled = torch.nn.utils.rnn.pad_sequence(embeds, batch_first=True)
        filled = torch.nn.functional.pad(filled, (0, 0, 0, longest - filled.shape[1]))
        prompts = torch.where(upload(own, self.device)[..., None], filled, pad.to(filled.dtype))
        return prompts, upload(ids, self.device), mask

    def _lay_out_images(self, samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Positions (B, tokens, 3) on the device; which tokens are not filling (B, tokens), in main memory; and
        constants."""
        longest = _padded(self.tokens)
        ids = torch.zeros(len(samples), longest, 3, dtype=torch.int32)
        mask = torch.zeros(len(samples), longest, dtype=torch.bool)
        own = torch.zeros(len(samples), longest, dtype=torch.bool)
        for row, sample in enumerate(samples):
            wide, tokens = sample.width // 16, _tokens(sample)
            ids[row, :tokens, 0] = _padded(len(sample.prompt.embeds)) + 1
            ids[row, :tokens, 1] = torch.arange(tokens) // wide
            ids[row, :tokens, 2] = torch.arange(tokens) % wide
            mask[row, : _padded(tokens)] = True
            own[row, :tokens] = True
        return upload(ids, self.device), mask, {"own": upload(own, self.device)[..., None]}

    def begin(self, x: torch.Tensor, timestep: torch.Tensor) -> Activations:
        """Before the first block. x: (B, tokens, 64), float32; timestep: (B,)."""
        known, model = self.constants, self.transformer
        embedding = model.t_embedder(timestep * model.t_scale).to(self.dtype)
        hidden = model.all_x_embedder[PATCH](x.to(self.dtype))
        hidden = torch.nn.functional.pad(hidden, (0, 0, 0, known["own"].shape[1] - hidden.shape[1]))
        hidden = torch.where(known["own"], hidden, model.x_pad_token.to(hidden.dtype))
        for layer in model.noise_refiner:
            hidden = layer(hidden, known.get("image mask"), known["image rope"], embedding)
        hidden = torch.cat([hidden, known["prompts"]], dim=1)
        return Activations(hidden, embedding, known["rope"], known.get("mask"), x.shape[1])

    def _run(self, at: int, block: Any, stage: int, now: Activations) -> Activations:
        return replace(now, hidden=block(now.hidden, now.mask, now.rope, now.embedding))

    def _last(self, image: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        return -self.transformer.all_final_layer[PATCH](image, c=embedding)


def _tokens(sample: Sample) -> int:
    return (sample.width // 16) * (sample.height // 16)


def _padded(tokens: int) -> int:
    return -(-tokens // MULTIPLE) * MULTIPLE
