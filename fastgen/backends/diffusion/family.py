"""What the engine asks of a model family. A family is a folder in `families/` that knows one architecture: its parts,
its text conditioning, its latents and its blocks. The engine knows steps, groups, memory, threads and files, and no
architecture.

Shapes: B samples in a forward pass, `tokens` latent tokens per image of C channels each; both are the family's.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.modules import Modules


class Prompt(Protocol):
    """An encoded prompt. Only its family knows what else is in it."""

    @property
    def tokens(self) -> int:
        """Tokens of the whole prompt, before it was cut to the model's length."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""


@dataclass(eq=False)
class Sample:
    """One image in progress. Those that share a forward pass have the same `Family.key`."""

    prompt: Any
    """A `Prompt` of the family."""
    width: int
    height: int
    """In pixels."""
    steps: int
    guidance: float
    noise: torch.Tensor
    """(tokens, C), float32."""
    reference: torch.Tensor | None = None
    """(reference tokens, C): the images that it is made from, one after the other."""
    reference_sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) of each of them in pixels."""
    negative: Any = None
    """A `Prompt` for the second pass of true classifier-free guidance; None without one."""
    cfg: float = 0.0
    """Its scale, if there is a second pass."""
    keep: torch.Tensor | None = None
    """(tokens, C): latents to keep where `repaint` is 0."""
    repaint: torch.Tensor | None = None
    """(tokens, C) of 0 and 1."""
    memory: Any = None
    """What its family keeps for it while it takes its steps."""
    latents: torch.Tensor | None = None
    """(tokens, C), float32: the result."""
    pattern: str = ""
    """With a step cache one character per step: 1 computed in full, 0 taken from earlier steps."""
    whole: Sample | None = None
    """The sample at its full size, if this is the small image with which it begins."""
    begun: Beginning | None = None
    """The steps that it took as a small image, once it has taken them."""


class Small(NamedTuple):
    """How many first steps a sample takes at which smaller size."""

    steps: int
    width: int
    height: int
    """In pixels."""
    share: float
    """Its pixels, as a share of the full ones."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """The first steps of a sample, taken at a smaller size."""

    small: Small
    x: torch.Tensor
    """(tokens, C), float32: where the sample is after them, at its full size."""
    pattern: str
    """As `Sample.pattern`, of these steps."""


class Activations(Protocol):
    """What flows from block to block for the samples of a forward pass."""

    @property
    def image(self) -> torch.Tensor:
        """(B, tokens, width of the transformer): the image's own tokens."""

    def rows(self, rows: torch.Tensor | slice) -> Self:
        """Those of some of the samples."""


class Forward(Protocol):
    """The forward passes of some samples that are together for several steps. What is constant over the steps is
    computed once, when this is made. Nothing here may make the host wait for the device."""

    constants: Mapping[str, torch.Tensor]
    """All tensors on the device that a pass reads besides weights and arguments. The engine may exchange this mapping
    for one with the same names and shapes (opt/cuda_graphs)."""

    def begin(self, x: torch.Tensor, timestep: torch.Tensor) -> Any:
        """The `Activations` before the first block.

        Args:
            x: (B, tokens, C), float32: where the samples are.
            timestep: (B,), as `Family.timesteps` returns them.
        """

    def blocks(self, activations: Any, start: int, stop: int | None = None) -> Any:
        """The `Activations` after the transformer's blocks start:stop. The samples may be fewer than in `begin`. With
        stages they are on the device of the last of these blocks."""

    def back(self, image: torch.Tensor) -> torch.Tensor:
        """Tokens on the device where `begin` puts them."""

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over the processes that compute the image together; the values themselves if it is one."""

    def end(self, image: torch.Tensor, activations: Any) -> torch.Tensor:
        """The predicted velocity (B, tokens, C) from the image's tokens after the last block. `activations`: of all
        samples, for what is not tokens."""


class Family(Protocol):
    """One model of a family, loaded. Made by `load(settings, device)` of its module, see families/__init__.py."""

    modules: Modules
    text_parts: tuple[str, ...]
    """The modules that prompts need, by their names in `Modules`."""

    # Text

    def encode_prompts(self, prompts: list[str]) -> list[Any]:
        """One `Prompt` per text, in order, on the device, or in main memory if the text encoders come and go. Called by
        one thread at a time, with the text encoders on the device."""

    def encode_seen(self, prompts: list[tuple[str, tuple[Image.Image, ...]]]) -> list[Any]:
        """As `encode_prompts`, for a family whose text encoder reads the input images with the prompt
        (`modules.parts.processor`); the others need not have this.

        Args:
            prompts: the text and its images, each of its `condition_size`.
        """

    def condition_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) at which the text encoder reads an input image of this size. As for `encode_seen`."""

    def contrast(self, guidance: float, true_cfg: float | None, negative: str | None) -> tuple[str, float] | None:
        """The prompt and scale of the second pass of true classifier-free guidance; None if one pass is enough.

        Args:
            guidance, true_cfg, negative: `guidance`, `true_cfg_scale` and `negative_prompt` of the row; None: not set.
        """

    # Latents

    def noise(self, seed: int, width: int, height: int) -> torch.Tensor:
        """(tokens, C), float32, on the CPU, so that it is the same on every device: what diffusers draws with
        `generator=torch.Generator("cpu").manual_seed(seed)` in float32."""

    def mask(self, mask: Image.Image, size: tuple[int, int]) -> torch.Tensor:
        """A mask as (tokens, C) of 0 and 1, on the CPU. `size`: (width, height) of the image in pixels."""

    def encode_pictures(self, pictures: list[np.ndarray]) -> list[torch.Tensor]:
        """Images of one size, uint8 (H, W, 3), as latents (tokens, C) each, on the device."""

    def to_maps(self, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """Latents (B, tokens, C) of images of this size as the VAE's decoder takes them, (B, ...)."""

    def to_grid(self, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """The same numbers as (channels, h, w), where neighbours are neighbours in the image. Only a family with
        `Parts.grows` needs this and `from_grid`.

        Args:
            latents: (tokens, C) of an image of this size.
        """

    def from_grid(self, grid: torch.Tensor) -> torch.Tensor:
        """The inverse of `to_grid`."""

    def small_size(self, width: int, height: int, scale: float) -> tuple[int, int]:
        """The (width, height) nearest to `scale` times these that the family can make. As for `to_grid`."""

    def decode(self, maps: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W) in -1..1, not clamped, from what `to_maps` returned, or some rows of it."""

    # Steps

    def key(self, sample: Sample) -> Hashable:
        """What samples must have in common to share a forward pass."""

    def sigmas(self, steps: int, tokens: int) -> torch.Tensor:
        """The steps + 1 noise levels of a schedule, 1 to 0, on the CPU."""

    def timesteps(self, sigmas: torch.Tensor) -> torch.Tensor:
        """Noise levels (steps, B) on the device as `Forward.begin` takes them."""

    def guided(self, positive: torch.Tensor, negative: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """The velocity (B, tokens, C) of true classifier-free guidance from those of its two passes. `scale`:
        (B, 1, 1), float32."""

    def forward(self, samples: list[Sample], guidance: torch.Tensor) -> Any:
        """A `Forward` of samples with one key. `guidance`: (B,), float32, on the device."""
