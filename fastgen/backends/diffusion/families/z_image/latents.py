"""Z-Image's latents: noise, patches, and images through the VAE. Does not know steps.

Latents are (tokens, 64) per image: each token is a 2x2 patch of the VAE's 16 channels, the channels innermost; 16x16
pixels of the image.
"""

from __future__ import annotations

import numpy as np
import torch

from fastgen.backends.diffusion.families import patches
from fastgen.backends.diffusion.modules import Modules


def make_noise(seed: int, width: int, height: int, channels: int) -> torch.Tensor:
    """Noise (H/16 * W/16, 4 * channels); see `patches.make_noise`."""
    return pack(patches.make_noise(seed, (channels, 2 * (height // 16), 2 * (width // 16))))[0]


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> (B, h/2 * w/2, 4C): each token is a 2x2 patch."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, h * w // 4, 4 * c)


def unpack(tokens: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """The inverse of `pack` for latents of height h and width w."""
    b, _, c = tokens.shape
    return tokens.view(b, h // 2, w // 2, 2, 2, c // 4).permute(0, 5, 1, 3, 2, 4).reshape(b, c // 4, h, w)


def encode_pictures(m: Modules, pictures: list[np.ndarray]) -> list[torch.Tensor]:
    """Images of one size, uint8 (H, W, 3), as latents (H/16 * W/16, 64) each: the mode of the VAE's posterior."""
    found = patches.encode(m, pictures, lambda pixels: m.vae.encode(pixels).latent_dist.mode())
    return list(pack((found - m.vae.config.shift_factor) * m.vae.config.scaling_factor))


def to_maps(m: Modules, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Latents (B, tokens, 64) as the VAE's decoder takes them: (B, 16, H/8, W/8) in the model's type."""
    maps = unpack(latents.to(m.dtype), 2 * (height // 16), 2 * (width // 16))
    return maps / m.vae.config.scaling_factor + m.vae.config.shift_factor
