"""Latents -> pixels. Does not know steps or files."""

from __future__ import annotations

import numpy as np
import torch

from fastgen.backends.diffusion.encode import unpack
from fastgen.backends.diffusion.load import Modules
from fastgen.opt.offload import onload

MOST = 8
"""Maximum number of images decoded together: more is no faster and takes memory (bench/LOG.md)."""


@torch.inference_mode()
def decode(modules: Modules, latents: list[torch.Tensor], width: int, height: int, most: int, finish=list) -> list:
    """Packed latents (tokens, 64) of one size as images (3, H, W), float32, 0..1, on the device; None in the place of
    one whose latents or pixels are not all finite.

    Args:
        most: images that the VAE decodes together.
        finish: is applied to each such group before the next is decoded; `to_uint8` moves them off the device.
    """
    vae = modules.vae
    most = min(most, MOST)
    tokens = torch.stack(latents).to(modules.dtype)
    maps = unpack(tokens, 2 * (height // 16), 2 * (width // 16)) / vae.config.scaling_factor + vae.config.shift_factor
    # Only float32 rounds alike in any batch; see encode_pictures.
    size = most if modules.dtype == torch.float32 else 1
    pictures = []
    with onload(modules, "vae"):
        for chunk in maps.split(size):
            pixels = vae.decode(chunk, return_dict=False)[0].float()
            whole = (_finite(chunk) & _finite(pixels)).tolist()  # before infinity is clamped to a number
            made = finish((pixels / 2 + 0.5).clamp(0, 1))
            pictures += [picture if ok else None for picture, ok in zip(made, whole, strict=True)]
    return pictures


def _finite(batch: torch.Tensor) -> torch.Tensor:
    """Which items of a batch have no NaN and no infinity, as a tensor of bool on its device."""
    return torch.isfinite(batch).flatten(1).all(1)


def to_uint8(pictures: torch.Tensor) -> list[np.ndarray]:
    """Images (B, 3, H, W) in 0..1 as uint8 arrays (H, W, 3) on the CPU."""
    return [(p * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy() for p in pictures]
