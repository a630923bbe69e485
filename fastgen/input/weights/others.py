"""The layers of the families after FLUX.1 by the names of the programs that published them. Does not know files.

Qwen-Image's own names are those of diffusers.
"""

from __future__ import annotations

from typing import Any

from fastgen.input.weights import flux
from fastgen.input.weights.layers import ADDED_QKV, QKV, Model, Names, Shape, blocks, swapped, whole

_FLUX2_AROUND = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "final_layer.linear": "proj_out",
}
_FLUX2_DOUBLE = {
    "img_attn.qkv": QKV,
    "txt_attn.qkv": ADDED_QKV,
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_mlp.0": ("ff.linear_in",),
    "img_mlp.2": ("ff.linear_out",),
    "txt_mlp.0": ("ff_context.linear_in",),
    "txt_mlp.2": ("ff_context.linear_out",),
}
_FLUX2_SINGLE = {
    "linear1": ("attn.to_qkv_mlp_proj",),
    "linear2": ("attn.to_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}
_CHROMA_AROUND = {"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"}
_CHROMA_GUIDANCE = {"in_layer": ("linear_1",), "out_layer": ("linear_2",)}
_Z_IMAGE_BLOCK = {
    "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention.out": ("attention.to_out.0",),
    "attention.q_norm": ("attention.norm_q",),
    "attention.k_norm": ("attention.norm_k",),
}
_Z_IMAGE_AROUND = {
    "x_embedder": "all_x_embedder.2-1",
    "final_layer.linear": "all_final_layer.2-1.linear",
    "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
}
FAMILIES = ("flux2", "flux2_kept", "flux2_dev", "chroma", "z_image", "qwen_image", "qwen_image_edit")
_STILL = "__index_timestep_zero__"
"""ComfyUI's mark of Qwen-Image-Edit-2511, whose transformer sees input images without noise."""


def of(family: str, shapes: dict[str, Shape], config: dict[str, Any]) -> Model:
    """The layers of a model.

    Args:
        shapes: name of a parameter of the transformer -> its shape.
        config: of the transformer.
    """
    parts = {"transformer": shapes}
    if family in ("flux2", "flux2_kept", "flux2_dev"):
        return Model(parts, _flux2)
    if family == "chroma":
        return Model(parts, _chroma)
    if family == "z_image":
        return Model(parts, _z_image, {"norm_final.weight": "Z-Image does not use it"})
    if config.get("zero_cond_t"):
        return Model(parts, unused={_STILL: "it marks Qwen-Image-Edit-2511, which this model is"})
    return Model(parts, refused={_STILL: "it marks Qwen-Image-Edit-2511; name that as --model"})


def _flux2(shapes: dict[str, Shape]) -> Names:
    # There the last modulation gives shift and scale; in diffusers it gives scale and shift.
    found = {"final_layer.adaLN_modulation.1": swapped(shapes, "norm_out.linear")}
    found |= {name: whole(shapes, path) for name, path in _FLUX2_AROUND.items() if f"{path}.weight" in shapes}
    found |= blocks(shapes, "transformer_blocks", "double_blocks", _FLUX2_DOUBLE)
    return found | blocks(shapes, "single_transformer_blocks", "single_blocks", _FLUX2_SINGLE)


def _chroma(shapes: dict[str, Shape]) -> Names:
    found = {name: whole(shapes, path) for name, path in _CHROMA_AROUND.items() if f"{path}.weight" in shapes}
    found |= blocks(shapes, "distilled_guidance_layer.layers", "distilled_guidance_layer.layers", _CHROMA_GUIDANCE)
    found |= blocks(shapes, "transformer_blocks", "double_blocks", flux.DOUBLE)
    return found | blocks(shapes, "single_transformer_blocks", "single_blocks", flux.SINGLE)


def _z_image(shapes: dict[str, Shape]) -> Names:
    found = {name: whole(shapes, path) for name, path in _Z_IMAGE_AROUND.items() if f"{path}.weight" in shapes}
    for name in ("layers", "noise_refiner", "context_refiner"):
        found |= blocks(shapes, name, name, _Z_IMAGE_BLOCK)
    return found
