"""Files of weights for every family: LoRAs of each format change the weights as a product by hand says, to 1e-5 in
float32, and transformers in one file are read in the names of those who published them."""

from __future__ import annotations

import copy
import inspect
import json
import re

import pytest
import torch
from safetensors.torch import save_file

from fastgen.backends.diffusion import single_file
from fastgen.backends.diffusion.lora import merge
from fastgen.input.weights import alphas, gguf_file, lora, others, transformer
from fastgen.input.weights.safetensors import BadFile, read_header
from tests.backends.diffusion.families import tiny

RANK, SCALE = 4, 0.7
QKV, ADDED = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")
LAYERS = {
    "flux2": {
        "double_blocks.1.img_attn.qkv": [f"transformer_blocks.1.attn.{name}" for name in QKV],
        "double_blocks.0.txt_attn.qkv": [f"transformer_blocks.0.attn.{name}" for name in ADDED],
        "double_blocks.0.txt_mlp.2": ["transformer_blocks.0.ff_context.linear_out"],
        "single_blocks.1.linear1": ["single_transformer_blocks.1.attn.to_qkv_mlp_proj"],
        "img_in": ["x_embedder"],
        "single_stream_modulation.lin": ["single_stream_modulation.linear"],
    },
    "chroma": {
        "double_blocks.1.img_attn.qkv": [f"transformer_blocks.1.attn.{name}" for name in QKV],
        "single_blocks.1.linear1": [
            *(f"single_transformer_blocks.1.attn.{name}" for name in QKV),
            "single_transformer_blocks.1.proj_mlp",
        ],
        "distilled_guidance_layer.layers.1.out_layer": ["distilled_guidance_layer.layers.1.linear_2"],
        "txt_in": ["context_embedder"],
    },
    "z_image": {
        "layers.1.attention.qkv": [f"layers.1.attention.{name}" for name in QKV],
        "noise_refiner.0.attention.out": ["noise_refiner.0.attention.to_out.0"],
        "layers.0.feed_forward.w1": ["layers.0.feed_forward.w1"],
        "layers.0.adaLN_modulation.0": ["layers.0.adaLN_modulation.0"],
        "cap_embedder.1": ["cap_embedder.1"],
    },
    "qwen_image": {
        "transformer_blocks.1.attn.add_k_proj": ["transformer_blocks.1.attn.add_k_proj"],
        "transformer_blocks.0.img_mlp.net.0.proj": ["transformer_blocks.0.img_mlp.net.0.proj"],
        "transformer_blocks.0.txt_mod.1": ["transformer_blocks.0.txt_mod.1"],
        "txt_in": ["txt_in"],
    },
}
"""Family -> a layer by the name of those who published it -> the model's own layers."""


@pytest.fixture(scope="module", params=LAYERS)
def family(request):
    """Name, transformer, its layers."""
    module = tiny.transformer(request.param)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    return request.param, module, others.of(request.param, shapes, dict(module.config))


@pytest.fixture
def dice():
    return torch.Generator().manual_seed(1)


def draw(dice, *shape):
    return torch.randn(shape, generator=dice)


def kohya(name, weight, dice):
    down, up = draw(dice, RANK, weight.shape[1]), draw(dice, weight.shape[0], RANK)
    alpha = torch.tensor(2.0)
    name = f"lora_unet_{name.replace('.', '_')}"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": alpha}
    return tensors, weight + SCALE * 2 / RANK * up @ down


def comfyui(name, weight, dice):
    down, up = draw(dice, RANK, weight.shape[1]), draw(dice, weight.shape[0], RANK)
    name = f"diffusion_model.{name}"
    return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, weight + SCALE * up @ down


def dora(name, weight, dice):
    tensors, _ = comfyui(name, weight, dice)
    down, up = tensors.values()
    length = torch.rand(weight.shape[0], generator=dice) + 0.5
    merged = weight + SCALE * up @ down
    tensors[f"diffusion_model.{name}.lora_magnitude_vector"] = length
    return tensors, length[:, None] * merged / merged.norm(dim=1, keepdim=True)


def lokr(name, weight, dice):
    """Its larger matrix is a product, as LyCORIS and ai-toolkit write it."""
    rows = 5 if weight.shape[0] % 4 else 4
    first = draw(dice, rows, 2)
    a, b = draw(dice, weight.shape[0] // rows, RANK), draw(dice, RANK, weight.shape[1] // 2)
    name = f"diffusion_model.{name}"
    tensors = {
        f"{name}.lokr_w1": first,
        f"{name}.lokr_w2_a": a,
        f"{name}.lokr_w2_b": b,
        f"{name}.alpha": torch.tensor(8.0),
    }
    return tensors, weight + SCALE * 2.0 * torch.kron(first, a @ b)


def whole_lokr(name, weight, dice):
    """Without products alpha says nothing."""
    rows = 5 if weight.shape[0] % 4 else 4
    first, second = draw(dice, rows, 2), draw(dice, weight.shape[0] // rows, weight.shape[1] // 2)
    name = f"lycoris_{name.replace('.', '_')}"
    tensors = {f"{name}.lokr_w1": first, f"{name}.lokr_w2": second, f"{name}.alpha": torch.tensor(8.0)}
    return tensors, weight + SCALE * torch.kron(first, second)


def loha(name, weight, dice):
    rows, columns = weight.shape
    parts = [draw(dice, rows, RANK), draw(dice, RANK, columns), draw(dice, rows, RANK), draw(dice, RANK, columns)]
    name = f"lora_unet_{name.replace('.', '_')}"
    tensors = dict(zip([f"{name}.hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b")], parts, strict=True))
    product = (parts[0] @ parts[1]) * (parts[2] @ parts[3])
    return tensors | {f"{name}.alpha": torch.tensor(2.0)}, weight + SCALE * 2 / RANK * product


def difference(name, weight, dice):
    changed = draw(dice, *weight.shape)
    return {f"diffusion_model.{name}.diff": changed}, weight + SCALE * changed


def merged(module, model, tensors, folder):
    """Name of a parameter -> its value after the LoRA, of those that changed."""
    path = folder / "lora.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    after = copy.deepcopy(module)
    merge(str(path), lora.plan(read_header(path), model), SCALE, {"transformer": after})
    before = module.state_dict()
    return {name: value for name, value in after.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    "form", [kohya, comfyui, dora, lokr, whole_lokr, loha, difference], ids=lambda form: form.__name__
)
def test_formats(family, form, tmp_path, dice):
    name, module, model = family
    tensors, wanted = {}, {}
    for theirs, ours in LAYERS[name].items():
        weights = [module.get_submodule(path).weight for path in ours]
        own, made = form(theirs, torch.cat(weights), dice)
        tensors |= own
        wanted |= dict(zip([f"{path}.weight" for path in ours], made.split([len(one) for one in weights]), strict=True))
    found = merged(module, model, tensors, tmp_path)
    assert found.keys() == wanted.keys()
    for path, value in found.items():
        assert (value - wanted[path]).abs().max() < 1e-5, path


def test_the_names_of_diffusers_and_alpha_in_the_metadata(family, tmp_path, dice):
    name, module, model = family
    for prefix in ("transformer.", "", "base_model.model."):
        path = LAYERS[name][next(iter(LAYERS[name]))][0]
        weight = module.get_submodule(path).weight
        down, up = draw(dice, RANK, weight.shape[1]), draw(dice, weight.shape[0], RANK)
        found = merged(
            module, model, {f"{prefix}{path}.lora_A.weight": down, f"{prefix}{path}.lora_B.weight": up}, tmp_path
        )
        assert (found[f"{path}.weight"] - weight - SCALE * up @ down).abs().max() < 1e-5


def peft_configs(layers):
    """What PEFT may save for layers of these names."""
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    shared = {"target_modules": [*layers], "r": RANK}
    plain = shared | {"lora_alpha": 6}
    return {
        "lora": LoraConfig(**plain, alpha_pattern={layers[0]: 1}, rank_pattern={layers[-1]: 2}),
        "rslora": LoraConfig(**plain, use_rslora=True),
        "dora": LoraConfig(**plain, use_dora=True),
        "lokr": LoKrConfig(**shared, alpha=6),
        "lokr of two products": LoKrConfig(**shared | {"r": 1}, alpha=6, decompose_both=True, decompose_factor=4),
        "loha": LoHaConfig(**shared, alpha=6),
    }


@pytest.mark.parametrize("kind", peft_configs(["-"]))
def test_what_peft_saves_is_merged_as_peft_does(family, kind, tmp_path, dice):
    """Its alphas are in a file beside the adapter."""
    from peft import get_peft_model

    name, module, model = family
    layers = [path for paths in LAYERS[name].values() for path in paths]
    theirs = get_peft_model(copy.deepcopy(module), peft_configs(layers)[kind])
    for at, parameter in theirs.named_parameters():
        if re.search("lora_[AB]|lokr|hada", at):
            parameter.data.copy_(draw(dice, *parameter.shape) * 0.3)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    ours, plan = copy.deepcopy(module), lora.plan(alphas.read(path), model)
    merge(str(path), plan, 1.0, {"transformer": ours})
    wanted = theirs.merge_and_unload().state_dict()
    assert not plan.notes and len(plan.changes) == len(layers)
    for at, value in ours.state_dict().items():
        assert (value - wanted[at]).abs().max() < 1e-5, at
    assert not any(torch.equal(ours.get_submodule(at).weight, module.get_submodule(at).weight) for at in layers)


def original(module, model) -> dict[str, torch.Tensor]:
    """The transformer's tensors in the names of those who published it."""
    state = module.state_dict()
    found, taken = {}, set()
    for name, pieces in model._names(model.shapes["transformer"]).items():
        for kind in ("weight", "bias"):
            if f"{pieces[0].path}.{kind}" in state:
                rows = [state[f"{piece.path}.{kind}"][piece.start : piece.stop] for piece in pieces]
                end = "scale" if name.endswith(("query_norm", "key_norm")) else kind
                found[f"{name}.{end}"] = torch.cat(rows)
                taken |= {f"{piece.path}.{kind}" for piece in pieces}
    rest = {name: value for name, value in state.items() if name not in taken}
    return found | {re.sub(r"^(distilled.*\.norms\..*)weight$", r"\1scale", name): rest[name] for name in rest}


def of_diffusers(name):
    """Its conversion of a family's transformer; None if there is none, because the names are the same."""
    from diffusers.loaders import single_file_utils

    own = f"convert_{name}_transformer_checkpoint_to_diffusers"
    if name != "chroma":
        return getattr(single_file_utils, own, None)
    source = inspect.getsource(getattr(single_file_utils, own))  # only for the published width
    made = dict(vars(single_file_utils))
    exec(source.replace("inner_dim = 3072", "inner_dim = 32"), made)
    return made[own]


def filled(module, model, tensors, folder, dtype=torch.float32):
    path = folder / "transformer.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    plan = transformer.plan(read_header(path), model)
    with torch.device("meta"):
        empty = type(module).from_config(module.config)
    single_file.fill(empty, str(path), plan, dtype)
    return empty.state_dict(), plan.notes


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_transformer_in_the_original_names_is_read_as_diffusers_reads_it(family, prefix, tmp_path):
    name, module, model = family
    tensors = original(module, model)
    if (convert := of_diffusers(name)) is not None:  # Qwen-Image has only the names of diffusers
        theirs = convert(dict(tensors), config=module.config)
        assert theirs.keys() == module.state_dict().keys()
        assert all(torch.equal(theirs[key], value) for key, value in module.state_dict().items())
    found, notes = filled(module, model, {f"{prefix}{key}": value for key, value in tensors.items()}, tmp_path)
    assert not notes and all(torch.equal(found[key], value) for key, value in module.state_dict().items())


def test_8_bits_with_and_without_a_scale(family, tmp_path):
    """As ComfyUI's users have them."""
    _, module, model = family
    tensors, wanted = {}, {}
    for number, (key, value) in enumerate(module.state_dict().items()):
        tensors[key] = value
        if value.ndim == 2 and key.endswith(".weight"):
            small = value.to(torch.float8_e4m3fn)
            tensors[key], wanted[key] = small, small.float()
            if number % 2:
                path = key.removesuffix(".weight")
                scale = value.abs().max() / 448
                tensors[key] = (value / scale).to(torch.float8_e4m3fn)
                tensors |= {f"{path}.weight_scale": scale, f"{path}.input_scale": torch.tensor(1.0)}
                wanted[key] = tensors[key].float() * scale
    found, _ = filled(module, model, tensors, tmp_path)
    assert all(torch.allclose(found[key], value) for key, value in wanted.items())


def test_gguf(family, tmp_path):
    """Each tensor as `gguf` itself multiplies it out; rows of a layer that is several here alone."""
    import gguf

    name, module, model = family
    path, types = tmp_path / "transformer.gguf", gguf.GGMLQuantizationType
    writer, wanted = gguf.GGUFWriter(path, name), {}
    for number, (key, value) in enumerate(original(module, model).items()):
        kind = types.F32
        if value.ndim == 2 and value.shape[1] % 32 == 0:
            kind = (types.Q8_0, types.Q4_0, types.BF16, types.F16)[number % 4]
        data = gguf.quants.quantize(value.contiguous().numpy(), kind)
        writer.add_tensor(key, data, raw_dtype=kind)
        wanted[key] = torch.from_numpy(gguf.quants.dequantize(data, kind).astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    plan = transformer.plan(gguf_file.read_gguf(path), model)
    with torch.device("meta"):
        empty = type(module).from_config(module.config)
    single_file.fill(empty, str(path), plan, torch.float32)
    found = original(empty, model)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert (found[key].float() - value).abs().max() < 1e-5, key


def test_what_does_not_fit_is_named(family, tmp_path, dice):
    name, module, model = family
    with pytest.raises(BadFile, match=r"2 of 2 tensors .*this model has no such layer"):
        tensors = {"diffusion_model.blocks.7.to_q.lora_A.weight": draw(dice, 4, 32)}
        merged(module, model, tensors | {"diffusion_model.blocks.7.to_q.lora_B.weight": draw(dice, 32, 4)}, tmp_path)
    with pytest.raises(BadFile, match=r"text_encoder.layers.0.*this model has no such layer"):
        tensors = {"text_encoder.layers.0.mlp.lora_A.weight": draw(dice, 4, 32)}
        merged(module, model, tensors | {"text_encoder.layers.0.mlp.lora_B.weight": draw(dice, 32, 4)}, tmp_path)
    path = next(iter(LAYERS[name].values()))[0]
    rows, columns = module.get_submodule(path).weight.shape
    broken = {f"{path}.lokr_w1": draw(dice, 2, 2), f"{path}.lokr_w2": draw(dice, rows, columns)}
    with pytest.raises(BadFile, match=r"outputs x inputs.; the matrices are 2x2 and"):
        merged(module, model, broken, tmp_path)
    with pytest.raises(BadFile, match="lokr_w1 are missing"):
        merged(module, model, {f"{path}.lokr_w2": broken[f"{path}.lokr_w2"]}, tmp_path)
    with pytest.raises(BadFile, match="is LoKr or LoHa with a core tensor"):
        merged(module, model, {f"{path}.lokr_t2": draw(dice, 4, 4, 3, 3)}, tmp_path)
    with pytest.raises(BadFile, match="changed in two ways"):
        merged(module, model, broken | {f"{path}.lora_A.weight": draw(dice, 4, columns)}, tmp_path)
    del broken
    lacking = dict(list(module.state_dict().items())[1:])
    with pytest.raises(BadFile, match="lacks 1 weights of this model's transformer"):
        filled(module, model, lacking, tmp_path)


def test_what_no_model_needs_is_left_out(tmp_path):
    z_image = tiny.transformer("z_image")
    shapes = {name: tuple(value.shape) for name, value in z_image.state_dict().items()}
    state = z_image.state_dict() | {"norm_final.weight": torch.ones(32)}
    _, notes = filled(z_image, others.of("z_image", shapes, {}), state, tmp_path)
    assert notes == ("norm_final.weight is left out: Z-Image does not use it",)


@pytest.mark.parametrize("config", [{"zero_cond_t": True}, {}], ids=json.dumps)
def test_a_file_of_another_version_of_qwen_image_edit_is_refused(config, tmp_path):
    module = tiny.transformer("qwen_image", **config)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    state = module.state_dict() | {"__index_timestep_zero__": torch.empty(0)}
    if config:
        _, notes = filled(module, others.of("qwen_image_edit", shapes, config), state, tmp_path)
        assert notes == ("__index_timestep_zero__ is left out: it marks Qwen-Image-Edit-2511, which this model is",)
        return
    with pytest.raises(BadFile, match="it marks Qwen-Image-Edit-2511; name that as --model"):
        filled(module, others.of("qwen_image_edit", shapes, config), state, tmp_path)
