"""Norm, rotation and joining of queries and keys in one pass over memory, by a Triton kernel.

What: before its attention, a FLUX block normalizes the queries and keys of text and image, joins them and rotates them
by their positions. PyTorch reads and writes them six times for that; this kernel (norm_rope_kernel.py) does it once.
How much: not measured, so no profile chooses it; `fastgen bench` has an arm for it.
Quality: rounding.
When not: with compiled blocks, where PyTorch joins these steps itself; on a CPU.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import NormRope, Optimizations
from fastgen.errors import SettingsError
from fastgen.opt.base import Modules, blocks_of


def refuse(gpu: Gpu | None, choice: NormRope, others: Optimizations) -> str | None:
    if gpu is None:
        return "needs a CUDA GPU"
    if others.compile.on:
        return "compiled blocks do this themselves; use --no-compile"
    if find_spec("triton") is None:
        return "the package triton is not installed"
    return None


def apply(modules: Modules, choice: NormRope) -> dict:
    if type(modules.transformer).__name__ != "FluxTransformer2DModel":
        raise SettingsError(f"{choice.as_flag()}: its kernel is for FLUX.1; leave it out with this model")
    blocks: list[Any] = [block for _, block in blocks_of(modules)]
    for block in blocks:
        block.attn.processor = joined(block.attn.processor)
    return {"blocks": len(blocks)}


def joined(processor: Any) -> Any:
    """The processor of an attention layer, with the kernel in the place of its own steps."""
    from diffusers.models.attention_dispatch import dispatch_attention_fn
    from diffusers.models.transformers.transformer_flux import FluxAttnProcessor, _get_qkv_projections

    from fastgen.opt.norm_rope_kernel import norm_rope

    class NormRopeProcessor(FluxAttnProcessor):
        """As `FluxAttnProcessor`, without a mask."""

        def __call__(
            self,
            attn: Any,
            hidden_states: Any,
            encoder_hidden_states: Any = None,
            attention_mask: Any = None,
            image_rotary_emb: Any = None,
        ) -> Any:
            import torch

            found: tuple[Any, ...] = _get_qkv_projections(attn, hidden_states, encoder_hidden_states)
            has_text = encoder_hidden_states is not None
            query, key, value, *of_text = [x.unflatten(-1, (-1, attn.head_dim)) for x in found[: 6 if has_text else 3]]
            text_query: Any = None
            text_key: Any = None
            if has_text:
                text_query, text_key, text_value = of_text
                value = torch.cat([text_value, value], dim=1)
            query = norm_rope(text_query, query, getattr(attn, "norm_added_q", None), attn.norm_q, image_rotary_emb)
            key = norm_rope(text_key, key, getattr(attn, "norm_added_k", None), attn.norm_k, image_rotary_emb)
            made = dispatch_attention_fn(
                query, key, value, backend=self._attention_backend, parallel_config=self._parallel_config
            )
            made = made.flatten(2, 3).to(query.dtype)
            if not has_text:
                return made
            text, image = made.split_with_sizes([text_query.shape[1], made.shape[1] - text_query.shape[1]], dim=1)
            return attn.to_out[1](attn.to_out[0](image.contiguous())), attn.to_add_out(text.contiguous())

    new = NormRopeProcessor()
    new._attention_backend, new._parallel_config = processor._attention_backend, processor._parallel_config
    return new
