"""FLUX.2's latents: noise, patches, positions, and images through the VAE. Does not know steps.

Latents are (tokens, 128) per image: each token is a 2x2 patch of the VAE's 32 channels, 16x16 pixels of the image,
normalized by the statistics of the VAE's batch norm.
"""

from __future__ import annotations

import numpy as np
import torch

from fastgen.backends.diffusion.families import patches
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import upload

REFERENCES = 10
"""The positions of the first reference begin here on the first axis, those of the next one as far after it."""


def make_noise(seed: int, width: int, height: int, channels: int) -> torch.Tensor:
    """Noise (H/16 * W/16, channels); see `patches.make_noise`."""
    return patches.make_noise(seed, (channels, height // 16, width // 16))[0].flatten(1).T.contiguous()


def patchify(maps: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> (B, 4C, h/2, w/2)."""
    b, c, h, w = maps.shape
    return maps.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


def unpatchify(maps: torch.Tensor) -> torch.Tensor:
    """The inverse of `patchify`."""
    b, c, h, w = maps.shape
    return maps.reshape(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)


def position_ids(size: tuple[int, int], kind: int) -> torch.Tensor:
    """Position ids (tokens, 4) of an image: (kind, row, column, 0) of each patch."""
    width, height = size[0] // 16, size[1] // 16
    ids = torch.zeros(height, width, 4)
    ids[..., 0] = kind
    ids[..., 1] = torch.arange(height)[:, None]
    ids[..., 2] = torch.arange(width)[None, :]
    return ids.reshape(-1, 4)


def text_ids(tokens: int) -> torch.Tensor:
    """Position ids (tokens, 4) of a text: the last axis counts."""
    ids = torch.zeros(tokens, 4)
    ids[:, 3] = torch.arange(tokens)
    return ids


def encode_pictures(m: Modules, pictures: list[np.ndarray]) -> list[torch.Tensor]:
    """Images of one size, uint8 (H, W, 3), as latents (H/16 * W/16, 128) each: the mode of the VAE's posterior."""
    found = patchify(patches.encode(m, pictures, lambda pixels: m.vae.encode(pixels).latent_dist.mode()))
    mean, deviation = _statistics(m, found.device)
    return list(((found - mean) / deviation).flatten(2).transpose(1, 2).contiguous())


def to_maps(m: Modules, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Latents (B, tokens, 128) as the VAE's decoder takes them: (B, 32, H/8, W/8) in the model's type."""
    maps = latents.to(m.dtype).transpose(1, 2).unflatten(2, (height // 16, width // 16))
    mean, deviation = _statistics(m, maps.device)
    return unpatchify(maps * deviation + mean)


def _statistics(m: Modules, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    norm = m.vae.bn  # in main memory, if the VAE makes way there
    mean, variance = upload(norm.running_mean, device, m.dtype), upload(norm.running_var, device)
    deviation = torch.sqrt(variance + m.vae.config.batch_norm_eps).to(m.dtype)
    return mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)
