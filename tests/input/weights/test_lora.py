"""Every tensor of a LoRA has its place, or the file is refused by the names of what has none."""

from __future__ import annotations

import json

import pytest

from fastgen.errors import SettingsError
from fastgen.input.weights import lora
from fastgen.input.weights.safetensors import BadFile, read_header
from fastgen.resolver import resolve

Q = "transformer.transformer_blocks.0.attn.to_q"


def pair(name: str, down=("lora_A", (4, 128)), up=("lora_B", (128, 4))) -> dict[str, tuple]:
    return {f"{name}.{down[0]}.weight": down[1], f"{name}.{up[0]}.weight": up[1]}


def kohya(name: str, inputs: int = 128, outputs: int = 128) -> dict[str, tuple]:
    return pair(name, ("lora_down", (4, inputs)), ("lora_up", (outputs, 4))) | {f"{name}.alpha": ()}


@pytest.fixture
def plan(file, model):
    return lambda tensors, metadata=None: lora.plan(read_header(file(tensors, metadata)), model)


@pytest.mark.parametrize(
    ("tensors", "part", "paths"),
    [
        (pair(Q), "transformer", ["transformer_blocks.0.attn.to_q"]),
        (pair("transformer_blocks.0.attn.to_q"), "transformer", ["transformer_blocks.0.attn.to_q"]),
        (pair("base_model.model." + Q), "transformer", ["transformer_blocks.0.attn.to_q"]),
        (pair(Q, ("lora_A.default", (4, 128)), ("lora_B.default", (128, 4))), "transformer", None),
        (pair(Q, ("lora.down", (4, 128)), ("lora.up", (128, 4))), "transformer", None),
        (pair(Q, ("lora_down", (4, 128, 1, 1)), ("lora_up", (128, 4, 1, 1))), "transformer", None),
        (pair(Q) | {f"{Q}.lora_B.bias": (128,)}, "transformer", None),
        (kohya("lora_unet_double_blocks_1_img_attn_qkv", outputs=384), "transformer", 3),
        (kohya("diffusion_model.double_blocks.1.txt_attn.qkv", outputs=384), "transformer", 3),
        (kohya("lora_unet_single_blocks_3_linear1", outputs=896), "transformer", 4),
        (kohya("lora_unet_img_in", 64), "transformer", ["x_embedder"]),
        (kohya("lora_unet_txt_in", 96), "transformer", ["context_embedder"]),
        (
            kohya("lora_unet_guidance_in_in_layer", 256),
            "transformer",
            ["time_text_embed.guidance_embedder.linear_1"],
        ),
        (kohya("lora_unet_final_layer_linear", outputs=64), "transformer", ["proj_out"]),
        (kohya("lora_unet_final_layer_adaLN_modulation_1", outputs=256), "transformer", 2),
        (kohya("lora_transformer_transformer_blocks_0_attn_to_q"), "transformer", None),
        (pair("double_blocks.0.processor.qkv_lora1", ("down", (4, 128)), ("up", (384, 4))), "transformer", 3),
        (pair("single_blocks.0.processor.qkv_lora", ("down", (4, 128)), ("up", (384, 4))), "transformer", 3),
        (kohya("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 96, 96), "text_encoder", None),
        (
            pair("text_encoder.text_model.encoder.layers.0.mlp.fc1", ("lora_A", (4, 96)), ("lora_B", (192, 4))),
            "text_encoder",
            ["encoder.layers.0.mlp.fc1"],
        ),
        (kohya("lora_te3_encoder_block_0_layer_0_SelfAttention_q", 96, 96), "text_encoder_2", None),
        (
            kohya("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q", 96, 96),
            "text_encoder_2",
            None,
        ),
        ({f"{Q}.diff": (128, 128), f"{Q}.diff_b": (128,)}, "transformer", None),
        ({"transformer.transformer_blocks.0.attn.norm_q.weight": (32,)}, "transformer", None),
        (
            {"double_blocks.0.img_attn.norm.query_norm.scale": (32,)},
            "transformer",
            ["transformer_blocks.0.attn.norm_q"],
        ),
        ({"lora_te1_text_model_final_layer_norm.w_norm": (96,)}, "text_encoder", ["final_layer_norm"]),
        (
            kohya("lora_unet_double_blocks_0_img_attn_proj")
            | {"lora_unet_double_blocks_0_img_attn_proj.dora_scale": (128, 1)},
            "transformer",
            None,
        ),
        ({f"{Q}.lokr_w1": (4, 4), f"{Q}.lokr_w2": (32, 32)}, "transformer", None),
        (pair(Q) | {f"{Q}.lora_magnitude_vector": (128,)}, "transformer", None),
        (pair(Q) | {f"{Q}.lora_magnitude_vector.default.weight": (128,)}, "transformer", None),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_names_that_have_their_place(plan, tensors, part, paths):
    found = plan(tensors)
    (change,) = found.changes
    assert change.layer.part == part and sorted(change.tensors.values()) == sorted(tensors)
    assert bool(found.notes) == any(name.startswith("base_model") for name in tensors), "PEFT keeps alpha elsewhere"
    if isinstance(paths, list):
        assert [piece.path for piece in change.layer.pieces] == paths
    elif paths:
        assert len(change.layer.pieces) == paths


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "contains no LoRA weights"),
        (
            kohya("lora_unet_double_blocks_0_img_attn_proj") | kohya("lora_unet_double_blocks_7_img_attn_proj"),
            r"3 of 6 tensors do not fit.*double_blocks_7_img_attn_proj.lora_down.weight: this model has no such layer",
        ),
        (pair(Q.replace("to_q", "to_z")), "2 of 2 tensors .*this model has no such layer"),
        (pair(Q, ("lora_A", (4, 129))), "transformer_blocks.0.attn.to_q is 128x128 .*128x4 and 4x129"),
        (pair(Q, up=("lora_B", (128, 8))), "128x8 and 4x128"),
        ({f"{Q}.lora_A.weight": (4, 128)}, "its other matrix is missing"),
        ({f"{Q}.alpha": ()}, "the two matrices that it belongs to are missing"),
        (pair(Q) | {f"{Q}.lora_magnitude_vector": (129,)}, "is 129, not"),
        (pair(Q) | {f"{Q}.alpha": (2,)}, "is 2, not a single number or 1"),
        (pair(Q) | {f"{Q}.lora_A.weight": ("I64", (4, 128))}, "has type I64"),
        (pair(Q) | {f"{Q}.lora_A.bias": (4,)}, "is not a tensor of a LoRA"),
        (pair(Q) | {f"{Q}.lora_down.weight": (4, 128)}, "repeats"),
        (pair(Q) | pair(Q.removeprefix("transformer.")), "changes transformer_blocks.0.attn.to_q a second time"),
        (
            pair(Q) | kohya("lora_unet_double_blocks_0_img_attn_qkv", outputs=384),
            "changes transformer_blocks.0.attn.to_q a second time",
        ),
        (pair("transformer.x_embedder", ("lora_A", (4, 128))), "this is a control LoRA .Depth, Canny."),
        ({"transformer.x_embedder.weight": (128, 64)}, "replaces a whole weight, which is not supported"),
        ({f"{Q}.diff": (128, 64)}, "is 128x64, not 128x128"),
        ({"text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.diff_b": (96,)}, "has no bias"),
        ({f"{Q}.lokr_w1": (4, 4), f"{Q}.lokr_w2": (32, 31)}, "is 128x128 .*; the matrices are 4x4 and 32x31"),
        (
            {f"{Q}.lokr_t2": (4, 4, 3, 3)},
            "is LoKr or LoHa with a core tensor .1 tensor such as .*lokr_t2.*not supported",
        ),
        ({f"{Q}.hada_w1_a": (4, 4)}, "its matrices hada_w1 are missing"),
        ({f"{Q}.oft_blocks": (4, 4, 4)}, "is OFT"),
        ({f"{Q}.lora_mid.weight": (4, 4)}, "is LoCon with a middle layer"),
        (pair("unet.down_blocks.0.attentions.0.proj_in"), "2 of 2 tensors .*this model has no such layer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused_and_why(plan, tensors, words):
    with pytest.raises(BadFile, match=words):
        plan(tensors)


def test_a_message_has_examples_and_a_count(plan):
    tensors = {
        name: shape for i in range(4, 9) for name, shape in kohya(f"lora_unet_single_blocks_{i}_linear2", 640).items()
    }
    with pytest.raises(BadFile) as caught:
        plan(tensors)
    text = str(caught.value)
    assert "15 of 15 tensors" in text and text.count("no such layer") == lora.EXAMPLES and text.endswith("and 12 more")


def test_what_has_no_effect_is_named(plan):
    found = plan(pair(Q) | kohya("lora_te1_text_projection", 96, 96))
    assert found.parts == {"transformer"} and len(found.changes) == 1
    assert found.notes == (
        "3 tensors such as lora_te1_text_projection.lora_down.weight are left out: "
        "FLUX.1 does not use CLIP's projection",
    )


def test_alpha_beside_the_tensors(plan):
    said = {
        "transformer.r": 4,
        "transformer.lora_alpha": 8,
        "transformer.alpha_pattern": {"attn.to_k": 2},
        "text_encoder.lora_alpha": 1,
        "text_encoder.use_rslora": True,
    }
    clip = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    tensors = pair(Q) | pair(Q.replace("to_q", "to_k")) | pair(clip, ("lora_A", (4, 96)), ("lora_B", (96, 4)))
    found = plan(tensors, {"lora_adapter_metadata": json.dumps(said)}).changes
    assert [change.factor(None) for change in found] == [2.0, 0.5, 0.5]
    assert [change.factor(4.0) for change in found] == [1.0, 1.0, 2.0], "a tensor goes before"
    assert [change.factor(None) for change in plan(tensors).changes] == [1.0, 1.0, 1.0]
    with pytest.raises(BadFile, match="metadata"):
        plan(tensors, {"lora_adapter_metadata": "[1"})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"lora": ["a.safetensors"]}, r"--lora .*a\.safetensors: 2 of 2 tensors do not fit this model"),
        ({"lora": ["b.pt:0.5"]}, r"--lora .*b\.pt: is a pickle"),
        ({"transformer": "b.pt"}, r"--transformer .*b\.pt: is a pickle"),
        ({"transformer": "a.safetensors"}, "2 of 2 tensors do not fit this model's transformer"),
        ({"transformer": "c.safetensors"}, "no such file; give a .safetensors or .gguf file"),
    ],
)
def test_before_an_engine_starts(tmp_path, monkeypatch, file, flags, words):
    monkeypatch.chdir(tmp_path)
    file(pair("transformer.transformer_blocks.9.attn.to_q"))
    (tmp_path / "b.pt").write_bytes(b"PK")
    with pytest.raises(SettingsError, match=words):
        resolve("t2i", model="tiny", gpus="cpu", **flags)


def test_notes_go_to_the_user(tmp_path, file):
    path = file(pair(Q) | kohya("lora_te1_text_projection", 96, 96))
    (note,) = resolve("t2i", model="tiny", gpus="cpu", lora=[str(path)]).run.notes
    assert note.startswith(f"--lora {path}: 3 tensors such as") and "left out" in note
