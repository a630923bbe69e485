"""What quantized weights weigh, that they are used, and that a picture stays independent of its company."""

from __future__ import annotations

import copy

import pytest
import torch

from fastgen.errors import SettingsError
from fastgen.opt import quantize
from tests.opt.conftest import draw

CPU = torch.device("cpu")
MOST = {"8bit": 0.55, "int8": 0.55, "fp8": 0.55, "4bit": 0.35}
"""Of the weights in bfloat16."""


@pytest.fixture(scope="module")
def blocks():
    """A block of each kind, of FLUX.1's width over two (1536) and layers of its proportions, in bfloat16."""
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock

    torch.manual_seed(0)
    made = [FluxTransformerBlock(1536, 12, 128), FluxSingleTransformerBlock(1536, 12, 128)]
    return torch.nn.ModuleList(made).to(torch.bfloat16).eval().requires_grad_(False)


@pytest.mark.parametrize("kind", quantize.KINDS)
def test_weights_of_blocks_of_realistic_width(blocks, kind):
    plain = sum(2 * parameter.numel() for parameter in blocks.parameters())
    assert quantize.weight_bytes(blocks) == plain
    packed = copy.deepcopy(blocks)
    assert quantize.replace(packed, kind, CPU, torch.bfloat16) == 20
    # As after the first call, when bitsandbytes lays its weights out for the CPU.
    hidden, text, embedding = torch.randn(1, 16, 1536), torch.randn(1, 8, 1536), torch.randn(1, 1536)
    arguments = {"hidden_states": hidden, "encoder_hidden_states": text, "temb": embedding}
    arguments = {name: tensor.to(torch.bfloat16) for name, tensor in arguments.items()}
    with torch.inference_mode():
        for before, after in zip(blocks, packed, strict=True):
            want, got = before(**arguments)[1].float(), after(**arguments)[1].float()
            assert 0 < (want - got).abs().mean() / want.abs().mean() < 0.2
    assert quantize.weight_bytes(packed) / plain <= MOST[kind]


@pytest.mark.parametrize("kind", quantize.KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_is_the_same_alone_and_in_a_batch(tiny, kind, dtype):
    made = tiny(dtype=dtype, quantize=kind)
    together, alone = draw(made, 5), draw(made, 1)
    # Scales that were shared by a batch would differ by percents; bfloat16 rounds by its own.
    assert (together[0] - alone[0]).abs().mean() / alone.abs().mean() < (1e-4 if dtype == torch.float32 else 0.01)


@pytest.mark.parametrize("kind", quantize.KINDS)
def test_the_share_of_the_embedded_model(tiny, kind):
    """A tenth of this small model is not quantized; in float32 that weighs twice."""
    facts = tiny(dtype=torch.bfloat16, quantize=f"{kind},text:8bit").facts["quantize"]
    assert facts["transformer"]["of_bfloat16"] <= MOST[kind] and facts["text"]["kind"] == "8bit"
    assert facts["transformer"]["of_bfloat16"] < tiny(quantize=kind).facts["quantize"]["transformer"]["of_bfloat16"] < 0.7


def test_widths_that_4bit_cannot_pack_are_refused(tiny):
    with pytest.raises(SettingsError, match="--quantize text:4bit: none of this model's layers"):
        tiny(quantize="text:4bit")


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    for kind, package in (("8bit", "bitsandbytes"), ("fp8", "torchao")):
        assert f"{package} is not installed; pip install" in quantize.refuse(None, quantize.Config("none", kind), {})
