"""RMS norm of each head, then rotation by position, for text and image tokens at once: the Triton kernel, and the same
in PyTorch. Does not know models.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]

HEADS = 8
"""Heads of a token that one program works on."""


def norm_rope(text: Any, image: torch.Tensor, text_norm: Any, norm: Any, rope: tuple) -> torch.Tensor:
    """Text and image tokens, joined, normalized and rotated.

    Args:
        text: (B, text tokens, heads, width) or None. The last dimension is contiguous.
        image: (B, image tokens, heads, width).
        text_norm, norm: their `torch.nn.RMSNorm`, with a weight per element of a head.
        rope: (cos, sin), float32, (tokens, width) each, for text and image tokens in that order.

    Returns:
        (B, text tokens + image tokens, heads, width), contiguous.
    """
    batch, tokens, heads, width = image.shape
    before = 0 if text is None else text.shape[1]
    made = torch.empty(batch, before + tokens, heads, width, dtype=image.dtype, device=image.device)
    cos, sin = (table.contiguous() for table in rope)
    for part, own, at in ((text, text_norm, 0), (image, norm, before)):
        if part is None:
            continue
        _kernel[(batch * part.shape[1], triton.cdiv(heads, HEADS))](
            part,
            own.weight,
            cos,
            sin,
            made,
            part.shape[1],
            at,
            heads,
            *part.stride()[:3],
            *made.stride()[:3],
            torch.finfo(part.dtype).eps if own.eps is None else own.eps,
            HEADS=HEADS,
            HALF=width // 2,
            ROOM=triton.next_power_of_2(width // 2),
        )
    return made


def norm_rope_eager(text: Any, image: torch.Tensor, text_norm: Any, norm: Any, rope: tuple) -> torch.Tensor:
    """The same, step by step, as diffusers does it."""
    from diffusers.models.embeddings import apply_rotary_emb

    parts = [norm(image)] if text is None else [text_norm(text), norm(image)]
    return apply_rotary_emb(torch.cat(parts, dim=1), rope, sequence_dim=1)


@triton.jit
def _kernel(  # type: ignore[no-untyped-def]
    x,
    weight,
    cos,
    sin,
    out,
    tokens,
    at,
    heads,
    x_batch,
    x_token,
    x_head,
    out_batch,
    out_token,
    out_head,
    eps,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    ROOM: tl.constexpr,
):
    batch = tl.program_id(0) // tokens
    token = tl.program_id(0) % tokens
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    pair = 2 * tl.arange(0, ROOM)[None, :]
    inside = (head < heads) & (pair < 2 * HALF)
    x += batch.to(tl.int64) * x_batch + token * x_token + head * x_head + pair
    even = tl.load(x, inside, 0.0).to(tl.float32)
    odd = tl.load(x + 1, inside, 0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(even * even + odd * odd, 1) / (2 * HALF) + eps)[:, None]
    known = pair < 2 * HALF
    kind = out.dtype.element_ty
    # Rounded in between, as PyTorch's norm does.
    even = (even * scale * tl.load(weight + pair, known, 0.0).to(tl.float32)).to(kind).to(tl.float32)
    odd = (odd * scale * tl.load(weight + pair + 1, known, 0.0).to(tl.float32)).to(kind).to(tl.float32)
    place = (at + token) * 2 * HALF + pair
    first = even * tl.load(cos + place, known, 0.0) - odd * tl.load(sin + place, known, 0.0)
    second = odd * tl.load(cos + place + 1, known, 0.0) + even * tl.load(sin + place + 1, known, 0.0)
    out += batch.to(tl.int64) * out_batch + (at + token) * out_token + head * out_head + pair
    tl.store(out, first.to(kind), inside)
    tl.store(out + 1, second.to(kind), inside)
