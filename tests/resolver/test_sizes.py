"""A model's sizes come from its configs, and are those of its weights."""

from __future__ import annotations

from functools import partial
from math import prod
from pathlib import Path

import pytest

from fastgen.bench import synthetic
from fastgen.config.families import FLUX1, PARTS, Defaults
from fastgen.config.fit.memory import BITSANDBYTES, EIGHT_BITS
from fastgen.config.model_cards import TINY, ModelCard, read_card
from fastgen.input.weights.safetensors import read_header
from fastgen.opt import quantize
from fastgen.resolver import sizes

FULL = sizes.of_flux(synthetic.TRANSFORMER, synthetic.CLIP, synthetic.T5, synthetic.VAE)


def in_files(part: str) -> int:
    """Parameters by the headers of the embedded model's weights."""
    files = Path(TINY, part).glob("*.safetensors")
    return sum(prod(tensor.shape) for file in files for tensor in read_header(file).tensors.values())


def test_the_embedded_model():
    found = sizes.read(read_card("tiny", TINY))
    parts = {
        "transformer": found.transformer,
        "text_encoder_2": found.text,
        "text_encoder": found.clip,
        "vae": found.vae,
    }
    assert {name: part.all for name, part in parts.items()} == {name: in_files(name) for name in parts}


def test_the_published_models():
    """Parameters as published: 12 billion, T5-XXL's encoder 4.7, and so on; 19 and 38 blocks."""
    assert FULL.transformer.all == 11_901_408_320 and FULL.text.all == 4_762_310_656
    assert (FULL.clip.all, FULL.vae.all) == (123_060_480, 83_819_683)
    assert FULL.transformer.blocks == 19 * 339_831_296 + 38 * 141_591_808
    assert (FULL.transformer.largest_block, FULL.width, FULL.text_width) == (339_831_296, 3072, 10240)
    whole = sum(part.gib("none", 2) for part in (FULL.transformer, FULL.text, FULL.clip, FULL.vae))
    assert round(whole, 1) == 31.4 and round(FULL.transformer.gib("none", 2), 1) == 22.2
    # 8 bits leave out what every part keeps, and bitsandbytes also the last layer of T5's blocks
    assert [round(FULL.transformer.gib(kind, 2), 1) for kind in ("fp8", "8bit", "4bit")] == [11.1, 11.1, 6.3]
    assert [round(FULL.transformer.gib(kind, 2), 1) for kind in ("mxfp8", "nvfp4")] == [11.4, 6.3]
    assert [round(FULL.text.gib(kind, 2), 1) for kind in ("fp8", "8bit", "4bit")] == [4.6, 5.5, 4.0]


@pytest.mark.parametrize("model", ["transformer", "text"])
@pytest.mark.parametrize("kind", ["8bit", "4bit", "int8", "mxfp8", "nvfp4"])
def test_quantized_weights_weigh_what_was_reckoned(model, kind):
    """Against layers of FLUX.1's and T5's proportions that are quantized here, scales and all."""
    import torch
    from diffusers import FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    transformer = synthetic.TRANSFORMER | {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 32}
    transformer |= {"axes_dims_rope": [8, 12, 12], "joint_attention_dim": 512, "num_attention_heads": 8}
    t5 = synthetic.T5 | {"num_layers": 2, "d_model": 512, "d_ff": 1024, "num_heads": 8, "vocab_size": 512}
    small = sizes.of_flux(transformer, synthetic.CLIP, t5, synthetic.VAE)
    torch.manual_seed(0)
    if model == "transformer":
        module, part, places = FluxTransformer2DModel.from_config(transformer), small.transformer, FLUX1.quantized
    else:
        module, part, places = T5EncoderModel(T5Config(**t5)), small.text, ("",)
    module = module.to(torch.bfloat16).eval().requires_grad_(False)
    left_out = ("wo",) if model == "text" and kind in BITSANDBYTES else ()
    for place in places:
        quantize.replace(module.get_submodule(place), kind, torch.device("cpu"), torch.bfloat16, left_out)
    if model == "transformer":
        own = EIGHT_BITS.get(kind, kind)
        quantize.replace(module.get_submodule(FLUX1.embedders[0]), own, torch.device("cpu"), torch.bfloat16)
    reckoned = part.gib(kind, 2) * 2**30
    assert quantize.weight_bytes(module) == pytest.approx(reckoned, rel=0.03)


@pytest.mark.parametrize("family", ["flux2", "flux2_dev", "chroma", "z_image", "qwen_image"])
def test_other_families_by_the_headers_of_their_weights(family, tmp_path):
    from tests.backends.diffusion.families import tiny

    makers = {"flux2": partial(tiny.flux2, distilled=True)}
    pipeline = makers.get(family, getattr(tiny, family))(tmp_path)
    found = sizes.read(read_card("tiny", tmp_path))
    parts, text = PARTS[family], pipeline.text_encoder.state_dict()
    if parts.text_unused:
        pipeline.text_encoder = pipeline.text_encoder.model.language_model
    assert all(word in str(list(text)) for word in parts.text_unused)
    if parts.text_layers:
        pipeline.text_encoder.layers = pipeline.text_encoder.layers[: parts.text_layers]
    counts = {name: sum(p.numel() for p in getattr(pipeline, name).parameters()) for name in parts.modules}
    assert (found.transformer.all, found.text.all) == (counts["transformer"], counts["text_encoder"])
    blocks = [block for name in parts.blocks for block in getattr(pipeline.transformer, name)]
    assert found.transformer.by_block == tuple(sum(p.numel() for p in block.parameters()) for block in blocks)
    assert (found.width, found.text_width) == (32, 64)
    (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    assert (
        sizes.read(read_card("tiny", TINY))
        and sizes.read(ModelCard("x", str(tmp_path), family, "", Defaults())) is None
    )
