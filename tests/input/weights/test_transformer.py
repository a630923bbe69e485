"""Every tensor of a transformer in one file has its place and every parameter its tensor, or the file is refused."""

from __future__ import annotations

import pytest

from fastgen.input.weights import flux, transformer
from fastgen.input.weights.safetensors import BadFile, read_header
from fastgen.input.weights.transformer import Source


def own(model) -> dict[str, tuple]:
    """All tensors of the model, in diffusers' names."""
    return dict(model.shapes["transformer"])


def bfl(model) -> dict[str, tuple]:
    """All tensors of the model, in Black Forest Labs' names."""
    tensors = {}
    names = ["img_in", "txt_in", "final_layer.linear", "final_layer.adaLN_modulation.1"]
    names += [
        f"{name}.{layer}" for name in ("time_in", "vector_in", "guidance_in") for layer in ("in_layer", "out_layer")
    ]
    for i in range(2):
        for kind in ("img", "txt"):
            block = f"double_blocks.{i}.{kind}_"
            names += [block + name for name in ("mod.lin", "attn.qkv", "attn.proj", "mlp.0", "mlp.2")]
            tensors |= {f"{block}attn.norm.{name}_norm.scale": (32,) for name in ("query", "key")}
    for i in range(4):
        names += [f"single_blocks.{i}.{name}" for name in ("modulation.lin", "linear1", "linear2")]
        tensors |= {f"single_blocks.{i}.norm.{name}_norm.scale": (32,) for name in ("query", "key")}
    for name in names:
        shape = model.layer("transformer", name).shape
        tensors |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return tensors


@pytest.fixture
def plan(file, model):
    return lambda tensors: transformer.plan(read_header(file(tensors)), model)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "transformer."])
@pytest.mark.parametrize("naming", [own, bfl])
def test_both_namings_under_every_prefix(plan, model, naming, prefix):
    tensors = {prefix + name: shape for name, shape in naming(model).items()}
    found = plan(tensors)
    assert set(found.parameters) == set(model.shapes["transformer"]) and not found.notes
    assert {source.tensor for sources in found.parameters.values() for source in sources} == set(tensors)
    for name, sources in found.parameters.items():
        assert sum(source.stop - source.start for source in sources) == model.shapes["transformer"][name][0]


def test_rows_of_layers_that_are_one_there(plan, model):
    found = plan(bfl(model)).parameters
    fused = "single_blocks.2.linear1"
    block = "single_transformer_blocks.2."
    assert found[f"{block}attn.to_k.weight"] == (Source(f"{fused}.weight", 128, 256),)
    assert found[f"{block}proj_mlp.bias"] == (Source(f"{fused}.bias", 384, 896),)
    last = "final_layer.adaLN_modulation.1.weight"
    assert found["norm_out.linear.weight"] == (Source(last, 128, 256), Source(last, 0, 128)), "the scale comes first"


def eight_bits(model, scale: tuple = (), word: str = "scale_weight") -> dict[str, tuple]:
    tensors = bfl(model)
    for i in range(4):
        tensors[f"single_blocks.{i}.linear1.weight"] = ("F8_E4M3", (896, 128))
        tensors[f"single_blocks.{i}.linear1.{word}"] = scale
    return tensors


@pytest.mark.parametrize("word", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("shape", [(), (1,), (896,), (896, 1)])
def test_weights_of_8_bits_with_their_scale(plan, model, shape, word):
    tensors = eight_bits(model, shape, word) | {
        "scaled_fp8": ("F8_E4M3", (2,)),
        "single_blocks.0.linear1.scale_input": (1,),
        "single_blocks.0.linear1.comfy_quant": ("U8", (30,)),
    }
    scaled = Source("single_blocks.1.linear1.weight", 128, 256, f"single_blocks.1.linear1.{word}")
    found = plan(tensors).parameters
    assert found["single_transformer_blocks.1.attn.to_k.weight"] == (scaled,)
    assert not found["single_transformer_blocks.1.attn.to_k.bias"][0].scale


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"double_blocks.7.img_mlp.0.weight": (512, 128)},
            r"1 of \d+ tensors do not fit .*img_mlp.0.weight: .*no such layer",
        ),
        ({"img_in.weight": (128, 384)}, "img_in.weight: is 128x384; this model has 128x64"),
        ({"img_in.bias": ("U8", (128,))}, "img_in.bias: has type U8"),
        ({"img_in.bias": None}, "lacks 1 weights of this model's transformer. x_embedder.bias: is missing"),
        ({"guidance_in.in_layer.weight": None}, "of a model without guidance, such as FLUX.1-schnell"),
        ({"img_in.scale_weight": (7,)}, "img_in.scale_weight: is 7; a scale for the whole weight or each of its rows"),
        ({"img_in.scale_weight": (), "img_in.weight_scale": ()}, "is a second scale"),
        ({"img_in.weight": None, "img_in.scale_weight": ()}, "img_in.scale_weight: belongs to no weight"),
        ({"x_embedder.weight": (128, 64)}, "x_embedder.weight: is there twice"),
        ({"img_in.weight.absmax": (7,)}, "that fastgen does not read: bitsandbytes .1 tensors such as"),
        ({"img_in.qweight": (7,)}, "Use weights of full precision and --quantize"),
        ({"img_in.qweight": (7,), "img_in.wscales": (7,)}, "read: SVDQuant, for Nunchaku .1 tensors such as img_in.w"),
        ({"img_in.weight_scale_2": ()}, "img_in.weight_scale_2: this model has no such layer"),
    ],
    ids=str,
)
def test_what_is_refused_and_why(plan, model, change, words):
    tensors = {name: shape for name, shape in (bfl(model) | change).items() if shape is not None}
    with pytest.raises(BadFile, match=words):
        plan(tensors)


def test_a_file_of_another_kind(plan):
    with pytest.raises(BadFile, match="2 of 2 tensors do not fit this model's transformer"):
        plan({"decoder.conv_in.weight": (4, 4), "decoder.conv_in.bias": (4,)})


def test_other_parts_of_a_checkpoint_are_named(plan, model):
    tensors = {f"model.diffusion_model.{name}": shape for name, shape in bfl(model).items()}
    found = plan(tensors | {"vae.decoder.conv_in.weight": (4,), "text_encoders.clip_l.logit_scale": ()})
    assert found.notes == (
        "2 tensors such as vae.decoder.conv_in.weight are of other parts; those are taken from --model",
    )


def test_a_model_without_guidance_takes_none(file):
    small = flux.Model({"num_layers": 0, "num_single_layers": 0}, {}, {})
    tensors = own(small)
    transformer.plan(read_header(file(tensors)), small)
    with pytest.raises(BadFile, match=r"guidance_in\.in_layer\.weight: this model has no such layer"):
        transformer.plan(read_header(file(tensors | {"guidance_in.in_layer.weight": (3072, 256)})), small)
