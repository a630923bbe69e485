"""FLUX.1's latents: noise, packing, positions, masks, and images through the VAE. Does not know steps.

Packed latents are (tokens, 64) per image: each token is a 2x2 patch of the VAE's 16 channels, 16x16 pixels of the
image.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.families.patches import pack, unpack
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import upload
from fastgen.opt.offload import onload

CHANNELS = 16
MOST_PICTURES = 4
"""Images that go through the VAE's encoder together."""


def make_noise(seed: int, width: int, height: int) -> torch.Tensor:
    """Packed noise (H/16 * W/16, 64), float32, on the CPU: the same on every device. It equals what diffusers draws
    with `generator=torch.Generator("cpu").manual_seed(seed)` in float32."""
    generator = torch.Generator("cpu").manual_seed(seed)
    shape = (1, CHANNELS, 2 * (height // 16), 2 * (width // 16))
    return pack(torch.randn(shape, generator=generator, dtype=torch.float32))[0]


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
    width, height = size
    array = np.asarray(mask.resize(size, Image.Resampling.BOX) if mask.size != size else mask) > 0
    tokens = array.reshape(height // 16, 16, width // 16, 16).any(axis=(1, 3)).reshape(-1, 1)
    return torch.from_numpy(tokens.astype(np.float32)).expand(-1, 64)


@torch.inference_mode()
def encode_pictures(modules: Modules, pictures: list[np.ndarray]) -> list[torch.Tensor]:
    """Images of one size, uint8 (H, W, 3), as packed latents (H/16 * W/16, 64) each: the mode of the VAE's
    posterior."""
    vae = modules.vae
    pixels = upload(torch.from_numpy(np.stack(pictures)), modules.device)
    pixels = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(modules.dtype)
    # Only float32 rounds alike in any batch. Other types go one by one, so that an image is the same in any batch.
    size = MOST_PICTURES if modules.dtype == torch.float32 else 1
    with onload(modules, "vae"):
        latents = torch.cat([vae.encode(chunk).latent_dist.mode() for chunk in pixels.split(size)])
    latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    return list(pack(latents))


def to_maps(modules: Modules, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Packed latents (B, tokens, 64) as the VAE's decoder takes them: (B, 16, H/8, W/8) in the model's type."""
    config = modules.vae.config
    maps = unpack(latents.to(modules.dtype), 2 * (height // 16), 2 * (width // 16))
    return maps / config.scaling_factor + config.shift_factor
