"""A transformer out of one file is, weight by weight, the one that was put into it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastgen.backends.diffusion.families.flux1.load import load
from fastgen.config.model_cards import TINY
from fastgen.errors import ModelError
from fastgen.resolver import resolve

QKV = ("to_q", "to_k", "to_v")
ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")


@pytest.fixture(scope="module")
def original():
    return load_file(TINY / "transformer" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def theirs(original):
    """The embedded transformer in Black Forest Labs' names."""
    made = {}

    def put(name: str, *paths: str) -> None:
        for kind in ("weight", "bias"):
            if f"{paths[0]}.{kind}" in original:
                made[f"{name}.{kind}"] = torch.cat([original[f"{path}.{kind}"] for path in paths])

    put("img_in", "x_embedder")
    put("txt_in", "context_embedder")
    for name, embedder in {"time_in": "timestep", "vector_in": "text", "guidance_in": "guidance"}.items():
        for number, layer in ((1, "in_layer"), (2, "out_layer")):
            put(f"{name}.{layer}", f"time_text_embed.{embedder}_embedder.linear_{number}")
    for i in range(2):
        ours = f"transformer_blocks.{i}."
        for kind, qkv, norm, out, q, ff in (
            ("img", QKV, "norm1", "to_out.0", "norm_", "ff"),
            ("txt", ADDED, "norm1_context", "to_add_out", "norm_added_", "ff_context"),
        ):
            block = f"double_blocks.{i}.{kind}_"
            put(block + "mod.lin", f"{ours}{norm}.linear")
            put(block + "attn.qkv", *(f"{ours}attn.{name}" for name in qkv))
            put(block + "attn.proj", f"{ours}attn.{out}")
            put(block + "mlp.0", f"{ours}{ff}.net.0.proj")
            put(block + "mlp.2", f"{ours}{ff}.net.2")
            made[block + "attn.norm.query_norm.scale"] = original[f"{ours}attn.{q}q.weight"]
            made[block + "attn.norm.key_norm.scale"] = original[f"{ours}attn.{q}k.weight"]
    for i in range(4):
        ours, block = f"single_transformer_blocks.{i}.", f"single_blocks.{i}."
        put(block + "modulation.lin", f"{ours}norm.linear")
        put(block + "linear1", *(f"{ours}attn.{name}" for name in QKV), f"{ours}proj_mlp")
        put(block + "linear2", f"{ours}proj_out")
        made[block + "norm.query_norm.scale"] = original[f"{ours}attn.norm_q.weight"]
        made[block + "norm.key_norm.scale"] = original[f"{ours}attn.norm_k.weight"]
    put("final_layer.linear", "proj_out")
    for kind in ("weight", "bias"):  # shift before scale
        scale, shift = original[f"norm_out.linear.{kind}"].chunk(2)
        made[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
    return made


@pytest.fixture
def loaded(tmp_path):
    """loaded(tensors) -> the weights of the engine's transformer."""

    def run(tensors, dtype="fp32"):
        path = tmp_path / "transformer.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        settings = resolve("t2i", model="tiny", gpus="cpu", dtype=dtype, transformer=str(path))
        return load(settings, torch.device("cpu")).transformer.state_dict()

    return run


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_black_forest_labs_names(loaded, original, theirs, prefix):
    found = loaded({prefix + name: tensor for name, tensor in theirs.items()})
    assert found.keys() == original.keys()
    assert all(torch.equal(found[name], original[name].float()) for name in original)


@pytest.mark.parametrize("scales", ["weight", "row"])
def test_8_bits_with_a_scale(loaded, original, theirs, scales):
    """As ComfyUI writes them: `scale_weight` beside each weight, and a mark."""
    tensors, wanted = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, {}
    for name, tensor in theirs.items():
        if not name.endswith(".weight") or "blocks" not in name:
            tensors[name] = wanted[name] = tensor
            continue
        most = tensor.float().abs().amax(1, keepdim=True) if scales == "row" else tensor.float().abs().max().reshape(1)
        scale = most / 448
        tensors[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
        tensors[f"{name.removesuffix('.weight')}.scale_weight"] = scale
        wanted[name] = (tensors[name].float() * scale).to(torch.bfloat16)
    found = loaded(tensors, "bf16")
    q = "single_transformer_blocks.0.attn.to_k.weight"
    assert torch.equal(found[q], wanted["single_blocks.0.linear1.weight"][128:256])
    for name, tensor in original.items():
        if tensor.dim() == 2:
            assert found[name].float().std().item() == pytest.approx(tensor.float().std().item(), rel=0.02), name


def test_a_file_that_changed_after_resolve(loaded, theirs, tmp_path):
    loaded(theirs)
    settings = resolve("t2i", model="tiny", gpus="cpu", transformer=str(tmp_path / "transformer.safetensors"))
    (tmp_path / "transformer.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"--transformer .*is not a \.safetensors file"):
        load(settings, torch.device("cpu"))
