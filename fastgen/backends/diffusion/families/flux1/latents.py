"""FLUX.1's latents: noise, packing, positions, masks, and images through the VAE. Does not know steps.

Packed latents are (tokens, 64) per image: each token is a 2x2 patch of the VAE's 16 channels, 16x16 pixels of the
image.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.families import patches
from fastgen.backends.diffusion.families.patches import pack, unpack
from fastgen.backends.diffusion.modules import Modules

CHANNELS = 16


def make_noise(seed: int, width: int, height: int) -> torch.Tensor:
    """Packed noise (H/16 * W/16, 64); see `patches.make_noise`."""
    return pack(patches.make_noise(seed, (CHANNELS, 2 * (height // 16), 2 * (width // 16))))[0]


def position_ids(size: tuple[int, int], kind: int) -> torch.Tensor:
    """Position ids (tokens, 3) of an image: (kind, row, column) of each 16x16 patch."""
    width, height = size[0] // 16, size[1] // 16
    ids = torch.zeros(height, width, 3)
    ids[..., 0] = kind
    ids[..., 1] = torch.arange(height)[:, None]
    ids[..., 2] = torch.arange(width)[None, :]
    return ids.reshape(-1, 3)


def token_mask(mask: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """The mask for packed latents, (tokens, 64) of 0 and 1: a token is repainted if any of its 16x16 pixels is."""
    return patches.token_mask(mask, size, 16, 4 * CHANNELS)


def encode_pictures(modules: Modules, pictures: list[np.ndarray]) -> list[torch.Tensor]:
    """Images of one size, uint8 (H, W, 3), as packed latents (H/16 * W/16, 64) each: the mode of the VAE's
    posterior."""
    vae = modules.vae
    found = patches.encode(modules, pictures, lambda pixels: vae.encode(pixels).latent_dist.mode())
    return list(pack((found - vae.config.shift_factor) * vae.config.scaling_factor))


def to_maps(modules: Modules, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Packed latents (B, tokens, 64) as the VAE's decoder takes them: (B, 16, H/8, W/8) in the model's type."""
    config = modules.vae.config
    maps = unpack(latents.to(modules.dtype), 2 * (height // 16), 2 * (width // 16))
    return maps / config.scaling_factor + config.shift_factor
