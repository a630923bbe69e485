"""Latents -> pixels. Does not know steps or files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fastgen.backends.diffusion.family import Family
from fastgen.backends.diffusion.transfer import Download
from fastgen.opt.offload import onload

MOST = 8
"""Maximum number of images decoded together: more is no faster and takes memory (bench/LOG.md)."""


@dataclass(frozen=True)
class Decoded:
    """An image that the device may still be working on."""

    pixels: torch.Tensor | Download
    _whole: Download
    """Which images of its group have no NaN and no infinity."""
    _position: int
    """In its group."""

    def wait(self) -> np.ndarray | torch.Tensor | None:
        """The pixels; None if they or the latents are not all finite. From any thread."""
        if not self._whole.wait()[self._position]:
            return None
        return self.pixels.wait().numpy() if isinstance(self.pixels, Download) else self.pixels


@torch.inference_mode()
def decode(
    family: Family,
    latents: list[torch.Tensor],
    width: int,
    height: int,
    most: int,
    finish: Callable[[torch.Tensor], Sequence[torch.Tensor | Download]] = list,
) -> list[Decoded]:
    """Latents (tokens, C) of one size as images (3, H, W), float32, 0..1, on the device. On a GPU the work is
    only enqueued.

    Args:
        most: images that the VAE decodes together.
        finish: is applied to each such group before the next is decoded; `to_uint8` moves them off the device.
    """
    most = min(most, MOST)
    maps = family.to_maps(torch.stack(latents), width, height)
    # Only float32 rounds alike in any batch. Other types go one by one, so that an image is the same in any batch.
    size = most if family.modules.dtype == torch.float32 else 1
    pictures: list[Decoded] = []
    with onload(family.modules, "vae"):
        for chunk in maps.split(size):
            pixels = family.decode(chunk).float()
            whole = Download(_finite(chunk) & _finite(pixels))  # before infinity is clamped to a number
            made = finish((pixels / 2 + 0.5).clamp(0, 1))
            pictures += [Decoded(picture, whole, position) for position, picture in enumerate(made)]
    return pictures


def _finite(batch: torch.Tensor) -> torch.Tensor:
    """Which items of a batch have no NaN and no infinity, as a tensor of bool on its device."""
    return torch.isfinite(batch).flatten(1).all(1)


def to_uint8(pictures: torch.Tensor) -> list[Download]:
    """Images (B, 3, H, W) in 0..1 as uint8 (H, W, 3), each on its way to main memory."""
    return [Download((p * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()) for p in pictures]
