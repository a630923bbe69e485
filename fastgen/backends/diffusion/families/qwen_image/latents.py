"""Qwen-Image's latents: noise, and images through its VAE, which is made for videos: an image is one frame. Does not
know steps.

Packed latents are (tokens, 64) per image: each token is a 2x2 patch of the VAE's 16 channels, 16x16 pixels of the
image.
"""

from __future__ import annotations

import numpy as np
import torch

from fastgen.backends.diffusion.families import patches
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import upload


def make_noise(seed: int, width: int, height: int, channels: int) -> torch.Tensor:
    """Packed noise (H/16 * W/16, 4 * channels); see `patches.make_noise`."""
    return patches.pack(patches.make_noise(seed, (channels, 2 * (height // 16), 2 * (width // 16))))[0]


def encode_pictures(m: Modules, pictures: list[np.ndarray]) -> list[torch.Tensor]:
    """Images of one size, uint8 (H, W, 3), as packed latents (H/16 * W/16, 64) each: the mode of the VAE's
    posterior."""
    found = patches.encode(m, pictures, lambda pixels: m.vae.encode(pixels[:, :, None]).latent_dist.mode()[:, :, 0])
    mean, deviation = _statistics(m, found)
    return list(patches.pack((found - mean) / deviation))


def to_maps(m: Modules, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Packed latents (B, tokens, 64) as the VAE's decoder takes them, without the frame: (B, 16, H/8, W/8) in the
    model's type."""
    maps = patches.unpack(latents.to(m.dtype), 2 * (height // 16), 2 * (width // 16))
    mean, deviation = _statistics(m, maps)
    return maps * deviation + mean


def _statistics(m: Modules, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.tensor([m.vae.config.latents_mean, m.vae.config.latents_std], dtype=like.dtype)
    mean, deviation = upload(values, like.device)
    return mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)
