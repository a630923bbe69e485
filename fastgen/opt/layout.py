"""The layout of weights in memory: channels-last for the VAE, and one matrix for query, key and value.

What: convolutions read a pixel's channels side by side; attention multiplies by one matrix instead of three. Each of
the three is freed when it is joined, so this takes no more memory (diffusers' own `fuse_qkv_projections` keeps both).
How much: the VAE 1.3 to 1.7 times as fast on a CPU (bench/LOG.md), so always on. One matrix: docs/optimizations.md.
Quality: rounding.
When not: fused QKV after quantization.
"""

from __future__ import annotations

from typing import Any

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Layout, Optimizations
from fastgen.errors import SettingsError
from fastgen.opt.base import Modules, blocks_of

JOINED = {"to_qkv": ("to_q", "to_k", "to_v"), "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj")}
"""One matrix -> those that it is made of."""


def refuse(gpu: Gpu | None, choice: Layout, others: Optimizations) -> str | None:
    return None


def apply(modules: Modules, choice: Layout) -> dict:
    import torch

    frames = any(isinstance(layer, torch.nn.Conv3d) for layer in modules.vae.modules())  # a VAE for videos
    if not frames:
        modules.vae.to(memory_format=torch.channels_last)
    if choice.fuse_qkv:
        if not modules.parts.fuses:
            raise SettingsError(f"{choice.as_flag()}: only for FLUX.1; leave it out with this model")
        block: Any
        for _, block in blocks_of(modules):
            _fuse(block.attn)
    return {"vae": "as it is" if frames else "channels_last", "fused_qkv": choice.fuse_qkv}


def _fuse(attention: Any) -> None:
    """Like diffusers' own way to join them, but without keeping the old ones."""
    attention.fuse_projections()
    for joined, parts in JOINED.items():
        if hasattr(attention, joined):
            getattr(attention, joined).requires_grad_(False)
            for part in parts:
                delattr(attention, part)
