"""Layers of FLUX.2, Z-Image and Qwen-Image by other names. `tests/backends/diffusion/families/test_weights.py` compares
all of them with diffusers' conversion."""

from __future__ import annotations

from fastgen.input.weights import others


def pieces(family: str, name: str, *ours: str) -> list[str] | None:
    """The model's own layers behind a name, in a model that has only these."""
    shapes = {f"{path}.weight": (8, 4) for path in (*ours, "norm_out.linear")}
    found = others.of(family, shapes, {}).layer("transformer", name)
    return [piece.path for piece in found.pieces] if found else None


def test_names():
    qkv = [f"transformer_blocks.0.attn.to_{letter}" for letter in "qkv"]
    assert pieces("flux2", "double_blocks.0.img_attn.qkv", *qkv) == qkv
    one = "single_transformer_blocks.3.attn.to_qkv_mlp_proj"
    assert pieces("flux2", "single_blocks_3_linear1", one) == [one]
    assert pieces("z_image", "layers.0.attention.out", "layers.0.attention.to_out.0") == ["layers.0.attention.to_out.0"]
    assert pieces("z_image", "x_embedder", "all_x_embedder.2-1") == ["all_x_embedder.2-1"]
    assert pieces("qwen_image", "img_in", "img_in") == ["img_in"]
    assert pieces("qwen_image", "double_blocks.0.img_attn.qkv", *qkv) is None
