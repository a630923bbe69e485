"""FLUX.2 klein with kept references (`Flux2KleinKVPipeline`) as a `Family`.

There the tokens of references attend only to each other and have no noise, so what the other tokens attend to, their
keys and values in each block, is the same at every step. It is computed once per sample, alone, and stays with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux2 import (
    Flux2KVAttnProcessor,
    Flux2KVLayerCache,
    Flux2KVParallelSelfAttnProcessor,
)

from fastgen.backends.diffusion.borders import cross
from fastgen.backends.diffusion.families.flux2 import family
from fastgen.backends.diffusion.families.flux2.family import Flux2, Rope
from fastgen.backends.diffusion.families.flux2.forward import Activations, Forward
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.modules import Modules
from fastgen.config.families import FLUX2_KEPT
from fastgen.config.settings import Settings

Kept = list[tuple[torch.Tensor, torch.Tensor]]
"""Of each block keys and values (1, reference tokens, heads, width of a head), on the block's device."""


class KeptForward(Forward):
    """Args: as `Forward`."""

    def __init__(self, m: Modules, samples: list[Sample], guidance: torch.Tensor, rope: Rope):
        text, image = samples[0].prompt.embeds.shape[0], len(samples[0].noise)
        cos, sin = (table[: text + image] for table in rope)
        super().__init__(m, [replace(sample, reference=None) for sample in samples], guidance, (cos, sin))
        self._caches: list[Flux2KVLayerCache] = []
        """While references are read: where keys and values go."""
        if samples[0].reference is None:
            return
        cos, sin = (torch.cat([table[:1], table[text + image :]]) for table in rope)
        self._own_rope = [(cross(cos, stage.device), cross(sin, stage.device)) for stage in self.stages]
        for sample in samples:
            if sample.memory is None:
                sample.memory = self._read(sample)
        self._gather(samples)

    def begin(self, x: torch.Tensor, timestep: torch.Tensor) -> Activations:
        return replace(super().begin(x, timestep), row=self.constants.get("row"))

    def _read(self, sample: Sample) -> Kept:
        assert sample.reference is not None
        hidden = self.transformer.x_embedder(sample.reference[None].to(self.dtype))
        text = self.constants["text"][:1, :1]  # diffusers' attention has some in any case; nothing attends to it
        now = self._before(text, hidden, torch.zeros(1, device=self.device), hidden.shape[1])
        caches = self._caches = [Flux2KVLayerCache() for _ in self._blocks]
        self.blocks(now, 0)
        self._caches = []
        return [cache.get() for cache in caches]

    def _gather(self, samples: list[Sample]) -> None:
        """Side by side for the passes of these samples, who then keep theirs as a part of it."""
        for at in range(len(self._blocks)):
            both = [torch.cat(found) for found in zip(*(sample.memory[at] for sample in samples), strict=True)]
            for number, sample in enumerate(samples):
                sample.memory[at] = tuple(one[number : number + 1] for one in both)
            self.constants |= {f"key {at}": both[0], f"value {at}": both[1]}
        self.constants["row"] = torch.arange(len(samples), device=self.device)

    def _rope(self, stage: int) -> Rope:
        return self._own_rope[stage] if self._caches else super()._rope(stage)

    def _attention(self, at: int, now: Activations) -> dict[str, Any] | None:
        if self._caches:
            found, mode, count = self._caches[at], "extract", now.tokens
        elif now.row is not None:
            key, value = self.constants[f"key {at}"], self.constants[f"value {at}"]
            if len(now.row) < len(key):
                key, value = key[now.row], value[now.row]
            found, mode, count = Flux2KVLayerCache(), "cached", key.shape[1]
            found.store(key, value)
        else:
            return None
        more = {} if at < self._double else {"num_txt_tokens": now.text.shape[1]}
        return {"kv_cache": found, "kv_cache_mode": mode, "num_ref_tokens": count, **more}


class Flux2Kept(Flux2):
    def forward(self, samples: list[Sample], guidance: torch.Tensor) -> KeptForward:
        return KeptForward(self.modules, samples, guidance, self.rope_of(samples[0]))


def load(settings: Settings, device: torch.device) -> Flux2Kept:
    """The model of the settings; see `families/parts.py`. Raises ModelError."""
    modules = family.load_modules(settings, device, FLUX2_KEPT, _attend)
    return Flux2Kept(modules, settings.engine.max_sequence_length)


def _attend(modules: dict[str, Any]) -> None:
    """The attention of diffusers that takes kept keys and values."""
    for block in modules["transformer"].transformer_blocks:
        block.attn.set_processor(Flux2KVAttnProcessor())
    for block in modules["transformer"].single_transformer_blocks:
        block.attn.set_processor(Flux2KVParallelSelfAttnProcessor())
