"""What families have in common whose tokens are patches of some pixels: pixels and masks as tensors. Knows no
architecture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.transfer import upload
from fastgen.opt.offload import onload

MOST_PICTURES = 4
"""Images that go through the VAE's encoder together."""


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> (B, h/2 * w/2, 4C): each token is a 2x2 patch."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(tokens: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """The inverse of `pack` for latents of height h and width w."""
    b, _, c = tokens.shape
    return tokens.view(b, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, h, w)


def make_noise(seed: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Noise (1, *shape), float32, on the CPU: the same on every device. It equals what diffusers draws with
    `generator=torch.Generator("cpu").manual_seed(seed)` in float32."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn((1, *shape), generator=generator, dtype=torch.float32)


def token_mask(mask: Image.Image, size: tuple[int, int], patch: int, channels: int) -> torch.Tensor:
    """(tokens, channels) of 0 and 1: a token is repainted if any of its patch x patch pixels is."""
    width, height = size
    array = np.asarray(mask.resize(size, Image.Resampling.BOX) if mask.size != size else mask) > 0
    tokens = array.reshape(height // patch, patch, width // patch, patch).any(axis=(1, 3)).reshape(-1, 1)
    return torch.from_numpy(tokens.astype(np.float32)).expand(-1, channels)


@torch.inference_mode()
def encode(modules: Modules, pictures: list[np.ndarray], mode: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Images of one size, uint8 (H, W, 3), through the VAE.

    Args:
        mode: pixels (B, 3, H, W) in -1..1 -> the mode of the posterior (B, ...).
    """
    pixels = upload(torch.from_numpy(np.stack(pictures)), modules.device)
    pixels = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(modules.dtype)
    # Only float32 rounds alike in any batch. Other types go one by one, so that an image is the same in any batch.
    size = MOST_PICTURES if modules.dtype == torch.float32 else 1
    with onload(modules, "vae"):
        return torch.cat([mode(chunk) for chunk in pixels.split(size)])
