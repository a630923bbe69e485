"""The layers of a FLUX.1 model and their names in other programs. Does not know files.

There are three naming schemes: diffusers' (`transformer_blocks.0.attn.to_q`), which the modules use; that of Black
Forest Labs (`double_blocks.0.img_attn.qkv`), in which one layer can be several of diffusers'; and that of XLabs, for
LoRAs. Kohya's has underscores instead of the dots of the first two.
"""

from __future__ import annotations

from typing import Any

from fastgen.input.weights import layers
from fastgen.input.weights.layers import ADDED_QKV, QKV, Shape


class Model(layers.Model):
    """The layers of a model, from the configs of its three parts."""

    def __init__(self, transformer: dict[str, Any], clip: dict[str, Any], t5: dict[str, Any]):
        transformer = _DEFAULTS["transformer"] | transformer
        shapes = {
            "transformer": _transformer(transformer),
            "text_encoder": _clip(_DEFAULTS["text_encoder"] | clip),
            "text_encoder_2": _t5(_DEFAULTS["text_encoder_2"] | t5),
        }
        super().__init__(shapes, _names)


def _names(shapes: dict[str, Shape]) -> layers.Names:
    """Black Forest Labs' names and XLabs'."""
    # There the last modulation gives shift and scale; in diffusers it gives scale and shift.
    found = {"final_layer.adaLN_modulation.1": layers.swapped(shapes, "norm_out.linear")}
    found["final_layer.linear"] = layers.whole(shapes, "proj_out")
    found |= {name: layers.whole(shapes, path) for name, path in _AROUND.items() if f"{path}.weight" in shapes}
    found |= layers.blocks(shapes, "transformer_blocks", "double_blocks", DOUBLE | _XLABS_DOUBLE)
    return found | layers.blocks(shapes, "single_transformer_blocks", "single_blocks", SINGLE | _XLABS_SINGLE)


_AROUND = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
}
DOUBLE = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": QKV,
    "txt_attn.qkv": ADDED_QKV,
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_XLABS_DOUBLE = {
    "processor.qkv_lora1": QKV,
    "processor.qkv_lora2": ADDED_QKV,
    "processor.proj_lora1": ("attn.to_out.0",),
    "processor.proj_lora2": ("attn.to_add_out",),
}
SINGLE = {
    "modulation.lin": ("norm.linear",),
    "linear1": (*QKV, "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}
_XLABS_SINGLE = {"processor.qkv_lora": QKV, "processor.proj_lora": ("proj_out",)}


_DEFAULTS: dict[str, dict[str, Any]] = {
    "transformer": {
        "attention_head_dim": 128,
        "guidance_embeds": False,
        "in_channels": 64,
        "joint_attention_dim": 4096,
        "num_attention_heads": 24,
        "num_layers": 19,
        "num_single_layers": 38,
        "out_channels": None,
        "pooled_projection_dim": 768,
    },
    "text_encoder": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "max_position_embeddings": 77,
        "num_hidden_layers": 12,
        "vocab_size": 49408,
    },
    "text_encoder_2": {
        "d_ff": 2048,
        "d_kv": 64,
        "d_model": 512,
        "num_heads": 8,
        "num_layers": 6,
        "relative_attention_num_buckets": 32,
        "vocab_size": 32128,
    },
}
"""Defaults of diffusers and transformers for what a config does not set."""


def _linear(shapes: dict[str, Shape], path: str, outputs: int, inputs: int, bias: bool = True) -> None:
    shapes[f"{path}.weight"] = (outputs, inputs)
    if bias:
        shapes[f"{path}.bias"] = (outputs,)


def _transformer(config: dict[str, Any]) -> dict[str, Shape]:
    """Parameters of diffusers' FluxTransformer2DModel."""
    head = config["attention_head_dim"]
    width = config["num_attention_heads"] * head
    shapes: dict[str, Shape] = {}
    _linear(shapes, "x_embedder", width, config["in_channels"])
    _linear(shapes, "context_embedder", width, config["joint_attention_dim"])
    embedders = {"timestep_embedder": 256, "text_embedder": config["pooled_projection_dim"]}
    if config["guidance_embeds"]:
        embedders["guidance_embedder"] = 256
    for name, inputs in embedders.items():
        _linear(shapes, f"time_text_embed.{name}.linear_1", width, inputs)
        _linear(shapes, f"time_text_embed.{name}.linear_2", width, width)
    for number in range(config["num_layers"]):
        block = f"transformer_blocks.{number}."
        for name in ("norm1", "norm1_context"):
            _linear(shapes, f"{block}{name}.linear", 6 * width, width)
        for name in (*QKV, *ADDED_QKV, "attn.to_out.0", "attn.to_add_out"):
            _linear(shapes, block + name, width, width)
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            shapes[f"{block}attn.{name}.weight"] = (head,)
        for name in ("ff", "ff_context"):
            _linear(shapes, f"{block}{name}.net.0.proj", 4 * width, width)
            _linear(shapes, f"{block}{name}.net.2", width, 4 * width)
    for number in range(config["num_single_layers"]):
        block = f"single_transformer_blocks.{number}."
        _linear(shapes, f"{block}norm.linear", 3 * width, width)
        _linear(shapes, f"{block}proj_mlp", 4 * width, width)
        _linear(shapes, f"{block}proj_out", width, 5 * width)
        for name in QKV:
            _linear(shapes, block + name, width, width)
        for name in ("norm_q", "norm_k"):
            shapes[f"{block}attn.{name}.weight"] = (head,)
    _linear(shapes, "norm_out.linear", 2 * width, width)
    _linear(shapes, "proj_out", config["out_channels"] or config["in_channels"], width)
    return shapes


def _clip(config: dict[str, Any]) -> dict[str, Shape]:
    """Parameters of transformers' CLIPTextModel."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, Shape] = {
        "embeddings.token_embedding.weight": (config["vocab_size"], width),
        "embeddings.position_embedding.weight": (config["max_position_embeddings"], width),
    }
    norms = ["final_layer_norm"]
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{number}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            _linear(shapes, f"{layer}self_attn.{name}", width, width)
        _linear(shapes, f"{layer}mlp.fc1", inner, width)
        _linear(shapes, f"{layer}mlp.fc2", width, inner)
        norms += [f"{layer}layer_norm1", f"{layer}layer_norm2"]
    for norm in norms:
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    return shapes


def _t5(config: dict[str, Any]) -> dict[str, Shape]:
    """Parameters of transformers' T5EncoderModel with gated layers, T5 v1.1."""
    width, inner = config["d_model"], config["d_ff"]
    heads = config["num_heads"] * config["d_kv"]
    shapes: dict[str, Shape] = {
        "shared.weight": (config["vocab_size"], width),
        "encoder.final_layer_norm.weight": (width,),
    }
    for number in range(config["num_layers"]):
        block = f"encoder.block.{number}.layer."
        for name in ("q", "k", "v"):
            _linear(shapes, f"{block}0.SelfAttention.{name}", heads, width, bias=False)
        _linear(shapes, f"{block}0.SelfAttention.o", width, heads, bias=False)
        if number == 0:
            buckets = config["relative_attention_num_buckets"]
            shapes[f"{block}0.SelfAttention.relative_attention_bias.weight"] = (buckets, config["num_heads"])
        for name in ("wi_0", "wi_1"):
            _linear(shapes, f"{block}1.DenseReluDense.{name}", inner, width, bias=False)
        _linear(shapes, f"{block}1.DenseReluDense.wo", width, inner, bias=False)
        for layer in (0, 1):
            shapes[f"{block}{layer}.layer_norm.weight"] = (width,)
    return shapes
