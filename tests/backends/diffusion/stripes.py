"""A model family for tests: a text is its number of letters, latents are pixels, and the transformer has two blocks
that pull every token towards a grey that the text decides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fastgen.backends.diffusion.families import patches
from fastgen.backends.diffusion.families.block_forward import BlockForward
from fastgen.backends.diffusion.modules import Modules
from fastgen.config.families import Defaults, Parts

PATCH, CHANNELS = 16, 3
PARTS = Parts(blocks=("layers",), after=("last",), quantized=("layers",), embedders=())


def defaults(transformer: dict, index: dict) -> Defaults:
    return Defaults(steps=3, guidance=0.0, width=64, height=64, true_cfg=False)


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pull = torch.nn.Parameter(torch.tensor([0.5]), requires_grad=False)

    def forward(self, tokens: torch.Tensor, grey: torch.Tensor) -> torch.Tensor:
        return tokens + (grey[:, None, None] - tokens) * self.pull


class Last(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([1.0]), requires_grad=False)


class Transformer(torch.nn.Module):
    _no_split_modules = ("Block",)

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([Block(), Block()])
        self.last = Last()


class Vae(torch.nn.Module):
    use_tiling = False


@dataclass(frozen=True)
class Prompt:
    grey: float
    tokens: int
    nbytes: int = 8


@dataclass(frozen=True)
class Activations:
    tokens: torch.Tensor
    grey: torch.Tensor

    @property
    def image(self) -> torch.Tensor:
        return self.tokens

    def at(self, device: torch.device) -> Activations:
        return self

    def rows(self, rows: Any) -> Activations:
        return Activations(self.tokens[rows], self.grey[rows])


class Forward(BlockForward[Any]):
    def __init__(self, modules: Modules, samples: list[Any]):
        super().__init__(modules)
        self.constants = {"grey": torch.tensor([sample.prompt.grey for sample in samples])}

    def begin(self, x: torch.Tensor, timestep: torch.Tensor) -> Activations:
        self.x = x
        return Activations(x, self.constants["grey"])

    def _run(self, at: int, block: Any, stage: int, now: Activations) -> Activations:
        return replace(now, tokens=block(now.tokens, now.grey))

    def end(self, image: torch.Tensor, activations: Activations) -> torch.Tensor:
        return self.x - image


class Stripes:
    text_parts = ("text_encoder",)

    def __init__(self, modules: Modules):
        self.modules = modules

    def encode_prompts(self, prompts: list[str]) -> list[Prompt]:
        return [Prompt(len(prompt) / 10 - 1, len(prompt)) for prompt in prompts]

    def contrast(self, guidance: float, true_cfg: float | None, negative: str | None) -> None:
        return None

    def noise(self, seed: int, width: int, height: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((width // PATCH) * (height // PATCH), CHANNELS, generator=generator)

    def mask(self, mask: Any, size: tuple[int, int]) -> torch.Tensor:
        return patches.token_mask(mask, size, PATCH, CHANNELS)

    def encode_pictures(self, pictures: list[np.ndarray]) -> list[torch.Tensor]:
        return [torch.from_numpy(p[::PATCH, ::PATCH].reshape(-1, CHANNELS) / 127.5 - 1).float() for p in pictures]

    def to_maps(self, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
        return latents.transpose(1, 2).unflatten(2, (height // PATCH, width // PATCH))

    def decode(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)

    def key(self, sample: Any) -> Any:
        return sample.width, sample.height

    def sigmas(self, steps: int, tokens: int) -> torch.Tensor:
        return torch.linspace(1, 0, steps + 1)

    def timesteps(self, sigmas: torch.Tensor) -> torch.Tensor:
        return sigmas

    def guided(self, positive: torch.Tensor, negative: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return positive

    def forward(self, samples: list[Any], guidance: torch.Tensor) -> Forward:
        return Forward(self.modules, samples)


def load(settings: Any, device: torch.device) -> Stripes:
    parts = {"transformer": Transformer(), "vae": Vae(), "text_encoder": torch.nn.Identity()}
    dtype = getattr(torch, settings.engine.dtype)
    return Stripes(
        Modules(**parts, tokenizer=None, scheduler=SimpleNamespace(config={}), device=device, dtype=dtype, parts=PARTS)
    )
