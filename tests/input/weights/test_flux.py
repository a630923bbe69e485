"""The layers that a config means are those that the modules have."""

from __future__ import annotations

import pytest

from fastgen.input.weights import flux
from fastgen.input.weights.layers import Piece

CONFIGS = {
    "dev": {"num_layers": 2, "num_single_layers": 1, "guidance_embeds": True, "pooled_projection_dim": 16},
    "schnell": {"num_layers": 1, "num_single_layers": 2, "joint_attention_dim": 24, "in_channels": 8},
    "fill": {"num_layers": 1, "num_single_layers": 1, "in_channels": 384, "out_channels": 64},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_shapes_of_the_transformer(name):
    import torch
    from diffusers import FluxTransformer2DModel

    config = {"num_attention_heads": 2, "attention_head_dim": 16, "axes_dims_rope": (4, 6, 6)} | CONFIGS[name]
    with torch.device("meta"):
        module = FluxTransformer2DModel(**config)
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert flux.Model(config, {}, {}).shapes["transformer"] == wanted


def test_shapes_of_the_text_encoders():
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    clip = CLIPTextConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=2, vocab_size=50)
    t5 = T5Config(d_model=24, d_ff=40, d_kv=4, num_heads=3, num_layers=2, vocab_size=50, feed_forward_proj="gated-gelu")
    model = flux.Model({}, clip.to_diff_dict(), t5.to_diff_dict())
    with torch.device("meta"):
        modules = {"text_encoder": CLIPTextModel(clip), "text_encoder_2": T5EncoderModel(t5)}
    for part, module in modules.items():
        shapes = {name.removeprefix("text_model."): tuple(value.shape) for name, value in module.named_parameters()}
        assert model.shapes[part] == shapes


def test_names_of_one_layer(model):
    same = model.layer("transformer", "transformer_blocks.1.attn.to_out.0")
    assert same.pieces == (Piece("transformer_blocks.1.attn.to_out.0", 0, 128),) and same.shape == (128, 128)
    for name in (
        "double_blocks.1.img_attn.proj",
        "double_blocks_1_img_attn_proj",
        "double_blocks.1.processor.proj_lora1",
    ):
        assert model.layer("transformer", name).pieces == same.pieces
    for none in ("transformer_blocks.2.attn.to_out.0", "attn.to_out.0", "double_blocks.2.img_attn.proj", ""):
        assert model.layer("transformer", none) is None


def test_one_layer_that_is_several(model):
    fused = model.layer("transformer", "single_blocks.3.linear1")
    block = "single_transformer_blocks.3."
    assert fused.shape == (3 * 128 + 512, 128) and fused.bias
    assert fused.pieces == (
        Piece(block + "attn.to_q", 0, 128),
        Piece(block + "attn.to_k", 0, 128),
        Piece(block + "attn.to_v", 0, 128),
        Piece(block + "proj_mlp", 0, 512),
    )
    shift_first = model.layer("transformer", "final_layer.adaLN_modulation.1")
    assert shift_first.pieces == (Piece("norm_out.linear", 128, 256), Piece("norm_out.linear", 0, 128))


def test_text_encoders_by_old_and_new_names(model):
    for name in (
        "text_model.encoder.layers.0.mlp.fc1",
        "encoder.layers.0.mlp.fc1",
        "text_model_encoder_layers_0_mlp_fc1",
    ):
        assert model.layer("text_encoder", name).pieces[0].path == "encoder.layers.0.mlp.fc1"
    wo = model.layer("text_encoder_2", "encoder_block_1_layer_1_DenseReluDense_wo")
    assert wo.shape == (96, 192) and not wo.bias
