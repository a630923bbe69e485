"""LoRAs of every format change the weights as a product by hand says, to 1e-5 in float32."""

from __future__ import annotations

import copy
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastgen.backends.diffusion.families.flux1.load import load
from fastgen.backends.diffusion.lora import merge
from fastgen.config.model_cards import TINY
from fastgen.input import weights
from fastgen.input.weights.safetensors import read_header
from fastgen.resolver import resolve

BLOCK, SINGLE = "transformer_blocks.0.", "single_transformer_blocks.1."
D, RANK = 128, 4


@pytest.fixture(scope="module")
def parts():
    """The embedded model's parts in float32, not to be changed."""
    from diffusers import FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel

    classes = {"transformer": FluxTransformer2DModel, "text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel}
    return {
        name: cls.from_pretrained(TINY, subfolder=name, torch_dtype=torch.float32).eval()
        for name, cls in classes.items()
    }


@pytest.fixture
def merged(parts, tmp_path):
    """merged(tensors, scale, metadata) -> part -> its weights after the LoRA."""

    def run(tensors, scale=1.0, metadata=None, modules=None):
        modules = modules or {name: copy.deepcopy(part) for name, part in parts.items()}
        path = str(tmp_path / "lora.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
        plan = weights.lora.plan(read_header(tmp_path / "lora.safetensors"), weights.read_model(TINY))
        merge(path, plan, scale, modules)
        return {
            name: {key.removeprefix("text_model."): value for key, value in module.state_dict().items()}
            for name, module in modules.items()
        }

    return run


@pytest.fixture
def dice():
    return torch.Generator().manual_seed(1)


def changed(before: dict, after: dict) -> dict[str, torch.Tensor]:
    """Name -> difference, of what is not as it was."""
    plain = {key.removeprefix("text_model."): value for key, value in before.items()}
    return {key: after[key] - value for key, value in plain.items() if not torch.equal(after[key], value)}


def assert_only(parts, after, wanted: dict[str, torch.Tensor], part="transformer") -> None:
    """Exactly these parameters changed, by so much."""
    for name in parts:
        found = changed(parts[name].state_dict(), after[name])
        assert set(found) == (set(wanted) if name == part else set())
        for key in found:
            assert (found[key] - wanted[key]).abs().max() < 1e-5, key


def matrices(dice, outputs=D, inputs=D) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(RANK, inputs, generator=dice), torch.randn(outputs, RANK, generator=dice)


def test_peft_with_a_scale_and_alpha_for_one_module(parts, merged, dice):
    (a, b), (c, d) = matrices(dice), matrices(dice)
    names = f"transformer.{BLOCK}attn.to_q", f"transformer.{SINGLE}attn.to_k"
    tensors = {f"{names[0]}.lora_A.weight": a, f"{names[0]}.lora_B.weight": b, f"{names[0]}.alpha": torch.tensor(8.0)}
    tensors |= {f"{names[1]}.lora_A.weight": c, f"{names[1]}.lora_B.weight": d}
    wanted = {f"{BLOCK}attn.to_q.weight": -0.7 * 2 * b @ a, f"{SINGLE}attn.to_k.weight": -0.7 * d @ c}
    assert_only(parts, merged(tensors, -0.7), wanted)


def test_alpha_in_the_metadata(parts, merged, dice):
    a, b = matrices(dice)
    name = f"transformer.{BLOCK}attn.to_q"
    said = {"transformer.lora_alpha": 16, "transformer.use_rslora": True}
    after = merged(
        {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, 1.0, {"lora_adapter_metadata": json.dumps(said)}
    )
    assert_only(parts, after, {f"{BLOCK}attn.to_q.weight": 16 / RANK**0.5 * b @ a})


def test_a_bias_of_the_second_matrix(parts, merged, dice):
    a, b = matrices(dice)
    bias = torch.randn(D, generator=dice)
    name = f"transformer.{BLOCK}attn.to_q"
    after = merged({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b, f"{name}.lora_B.bias": bias}, 0.5)
    assert_only(parts, after, {f"{BLOCK}attn.to_q.weight": 0.5 * b @ a, f"{BLOCK}attn.to_q.bias": 0.5 * bias})


@pytest.mark.parametrize(
    "name", ["lora_unet_double_blocks_0_txt_attn_qkv", "diffusion_model.double_blocks.0.txt_attn.qkv"]
)
def test_kohya_and_comfyui_with_layers_that_are_one_there(parts, merged, dice, name):
    a, b = matrices(dice, 3 * D)
    after = merged(
        {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b, f"{name}.alpha": torch.tensor(1.0)}, 2.0
    )
    q, k, v = (2.0 / RANK * b @ a).split(D)
    added = f"{BLOCK}attn.add_"
    assert_only(parts, after, {f"{added}q_proj.weight": q, f"{added}k_proj.weight": k, f"{added}v_proj.weight": v})


def test_kohya_with_attention_and_mlp_in_one(parts, merged, dice):
    a, b = matrices(dice, 3 * D + 4 * D)
    name = "lora_unet_single_blocks_1_linear1"
    after = merged({f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b, f"{name}.alpha": torch.tensor(2.0)})
    q, k, v, mlp = (0.5 * b @ a).split([D, D, D, 4 * D])
    wanted = {f"{SINGLE}attn.to_{letter}.weight": value for letter, value in zip("qkv", (q, k, v), strict=True)}
    assert_only(parts, after, wanted | {f"{SINGLE}proj_mlp.weight": mlp})


def test_kohya_around_the_blocks(parts, merged, dice):
    """What diffusers forgets: img_in, txt_in, guidance_in, and the last modulation with halves the other way."""
    layers = {
        "img_in": ("x_embedder", D, 64),
        "txt_in": ("context_embedder", D, 96),
        "guidance_in_in_layer": ("time_text_embed.guidance_embedder.linear_1", D, 256),
        "time_in_out_layer": ("time_text_embed.timestep_embedder.linear_2", D, D),
        "vector_in_in_layer": ("time_text_embed.text_embedder.linear_1", D, 96),
        "final_layer_linear": ("proj_out", 64, D),
        "final_layer_adaLN_modulation_1": ("norm_out.linear", 2 * D, D),
    }
    tensors, wanted = {}, {}
    for theirs, (ours, outputs, inputs) in layers.items():
        a, b = matrices(dice, outputs, inputs)
        name = f"lora_unet_{theirs}"
        tensors |= {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b, f"{name}.alpha": torch.tensor(4.0)}
        wanted[f"{ours}.weight"] = b @ a
    shift, scale = wanted["norm_out.linear.weight"].chunk(2)
    wanted["norm_out.linear.weight"] = torch.cat([scale, shift])
    assert_only(parts, merged(tensors), wanted)


def test_xlabs(parts, merged, dice):
    (a, b), (c, d) = matrices(dice, 3 * D), matrices(dice)
    tensors = {
        "double_blocks.0.processor.qkv_lora1.down.weight": a,
        "double_blocks.0.processor.qkv_lora1.up.weight": b,
        "double_blocks.0.processor.proj_lora2.down.weight": c,
        "double_blocks.0.processor.proj_lora2.up.weight": d,
    }
    q, k, v = (b @ a).split(D)
    wanted = {f"{BLOCK}attn.to_{letter}.weight": value for letter, value in zip("qkv", (q, k, v), strict=True)}
    assert_only(parts, merged(tensors), wanted | {f"{BLOCK}attn.to_add_out.weight": d @ c})


def test_differences_of_weights_biases_and_norms(parts, merged, dice):
    def draw(*shape):
        return torch.randn(shape, generator=dice)

    tensors = {
        "diffusion_model.double_blocks.0.img_mlp.0.diff": draw(4 * D, D),
        "diffusion_model.double_blocks.0.img_mlp.0.diff_b": draw(4 * D),
        "diffusion_model.single_blocks.1.norm.key_norm.diff": draw(32),
        "lora_unet_double_blocks_0_img_attn_qkv.diff_b": draw(3 * D),
    }
    first, second, norm, fused = (0.5 * value for value in tensors.values())
    wanted = {
        f"{BLOCK}ff.net.0.proj.weight": first,
        f"{BLOCK}ff.net.0.proj.bias": second,
        f"{SINGLE}attn.norm_k.weight": norm,
    }
    wanted |= {f"{BLOCK}attn.to_{letter}.bias": value for letter, value in zip("qkv", fused.split(D), strict=True)}
    assert_only(parts, merged(tensors, 0.5), wanted)


def test_norms_that_are_replaced(parts, merged, dice):
    """As in Black Forest Labs' own LoRAs."""
    ours, theirs = torch.randn(32, generator=dice), torch.randn(32, generator=dice)
    before = parts["transformer"].state_dict()
    names = f"{BLOCK}attn.norm_q.weight", f"{BLOCK}attn.norm_added_k.weight"
    tensors = {f"transformer.{names[0]}": ours, "double_blocks.0.txt_attn.norm.key_norm.scale": theirs}
    after = merged(tensors)["transformer"]
    assert torch.allclose(after[names[0]], ours, atol=1e-6) and torch.allclose(after[names[1]], theirs, atol=1e-6)
    half = merged(tensors, 0.5)
    assert_only(parts, half, {names[0]: (ours - before[names[0]]) / 2, names[1]: (theirs - before[names[1]]) / 2})


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_dora_as_peft_merges_it(parts, merged, dice, scale):
    from peft import LoraConfig, get_peft_model

    a, b = matrices(dice)
    magnitude = torch.rand(D, generator=dice) + 0.5
    plain = parts["transformer"].transformer_blocks[0].attn.to_q
    model = get_peft_model(
        torch.nn.Sequential(copy.deepcopy(plain)), LoraConfig(r=RANK, lora_alpha=8, target_modules=["0"], use_dora=True)
    )
    layer = model.base_model.model[0]
    layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = a.clone(), b.clone()
    layer.lora_magnitude_vector["default"].weight.data = magnitude.clone()
    layer.set_scale("default", scale)
    layer.merge()
    name = f"transformer.{BLOCK}attn.to_q"
    tensors = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b, f"{name}.alpha": torch.tensor(8.0)}
    after = merged(tensors | {f"{name}.lora_magnitude_vector": magnitude}, scale)
    wanted = layer.base_layer.weight.detach() - plain.weight.detach()
    assert_only(parts, after, {f"{BLOCK}attn.to_q.weight": wanted})


@pytest.mark.parametrize("by", ["row", "column"])
def test_dora_of_kohya_on_a_layer_that_is_three_here(parts, merged, dice, by):
    a, b = matrices(dice, 3 * D)
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    magnitude = torch.rand((3 * D, 1) if by == "row" else (1, D), generator=dice) + 0.5
    tensors = {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b, f"{name}.alpha": torch.tensor(2.0)}
    after = merged(tensors | {f"{name}.dora_scale": magnitude})
    attention = parts["transformer"].transformer_blocks[0].attn
    before = torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight]).detach()
    product = before + 0.5 * b @ a
    wanted = magnitude * product / product.norm(dim=1 if by == "row" else 0, keepdim=True) - before
    q, k, v = wanted.split(D)
    assert_only(parts, after, {f"{BLOCK}attn.to_{x}.weight": value for x, value in zip("qkv", (q, k, v), strict=True)})


@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("lora_te1_text_model_encoder_layers_1_mlp_fc2", "text_encoder", "encoder.layers.1.mlp.fc2.weight"),
        ("text_encoder.text_model.encoder.layers.1.mlp.fc2", "text_encoder", "encoder.layers.1.mlp.fc2.weight"),
        (
            "text_encoders.t5xxl.transformer.encoder.block.1.layer.1.DenseReluDense.wo",
            "text_encoder_2",
            "encoder.block.1.layer.1.DenseReluDense.wo.weight",
        ),
    ],
)
def test_text_encoders(parts, merged, dice, name, part, key):
    a, b = matrices(dice, 96, 192)
    after = merged({f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b}, 0.25)
    assert_only(parts, after, {key: 0.25 * b @ a}, part)


def test_several_are_added_and_a_part_that_is_not_there_is_left_out(parts, merged, dice):
    (a, b), (c, d) = matrices(dice), matrices(dice, 96, 96)
    name, clip = f"transformer.{BLOCK}attn.to_q", "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    tensors |= {f"{clip}.lora_down.weight": c, f"{clip}.lora_up.weight": d}
    modules = {"transformer": copy.deepcopy(parts["transformer"])}
    merged(tensors, 1.0, modules=modules)
    after = merged(tensors, 0.5, modules=modules)
    assert_only({"transformer": parts["transformer"]}, after, {f"{BLOCK}attn.to_q.weight": 1.5 * b @ a})


def test_other_types_are_rounded_once(parts, merged, dice):
    a, b = matrices(dice)
    name = f"transformer.{BLOCK}attn.to_q"
    half = copy.deepcopy(parts["transformer"]).to(torch.bfloat16)
    before = half.transformer_blocks[0].attn.to_q.weight.detach().float()
    tensors = {f"{name}.lora_A.weight": a.to(torch.bfloat16), f"{name}.lora_B.weight": b.to(torch.bfloat16)}
    after = merged(tensors, 1.0, modules={"transformer": half})["transformer"][f"{BLOCK}attn.to_q.weight"]
    wanted = before + b.to(torch.bfloat16).float() @ a.to(torch.bfloat16).float()
    assert after.dtype == torch.bfloat16 and torch.equal(after, wanted.to(torch.bfloat16))


def test_the_files_of_the_model_stay_as_they_are(tmp_path, dice):
    """Weights that need no other type are read where they lie."""
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    for part in ("transformer", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        save_file({name: value.float() for name, value in load_file(file).items()}, file, {"format": "pt"})
    (a, b), (c, d) = matrices(dice), matrices(dice, 96, 96)
    name, clip = f"transformer.{BLOCK}attn.to_q", "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    tensors |= {f"{clip}.lora_down.weight": c, f"{clip}.lora_up.weight": d}
    save_file(tensors, tmp_path / "lora.safetensors")
    files = [path for path in tmp_path.rglob("*.safetensors")]
    before = [path.read_bytes() for path in files]
    settings = resolve("t2i", model=str(folder), gpus="cpu", dtype="float32", lora=[str(tmp_path / "lora.safetensors")])
    changed = load(settings, torch.device("cpu")).transformer.transformer_blocks[0].attn.to_q.weight
    whole = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")[f"{BLOCK}attn.to_q.weight"]
    assert (changed - whole - b @ a).abs().max() < 1e-5
    os.sync()
    assert [path.read_bytes() for path in files] == before
