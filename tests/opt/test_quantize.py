"""What quantized weights weigh, that they are used, and that a picture stays independent of its company."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from fastgen.config.optimizations import Optimizations, Quantize
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


@pytest.mark.parametrize("kind", Quantize.kinds)
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


@pytest.mark.parametrize("kind", Quantize.kinds)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_is_the_same_alone_and_in_a_batch(tiny, kind, dtype):
    made = tiny(dtype=dtype, quantize=kind)
    together, alone = draw(made, 5), draw(made, 1)
    # Scales that were shared by a batch would differ by percents; bfloat16 rounds by its own.
    assert (together[0] - alone[0]).abs().mean() / alone.abs().mean() < (1e-4 if dtype == torch.float32 else 0.01)


@pytest.mark.parametrize("kind", Quantize.kinds)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_of_the_embedded_model(tiny, kind, dtype):
    """What is left as it is weighs twice in float32, a CPU's own type."""
    facts = tiny(dtype=dtype, quantize=f"{kind},text:8bit").facts["quantize"]
    assert facts["transformer"]["of_bfloat16"] <= MOST[kind] and facts["text"]["kind"] == "8bit"


def test_what_two_names_share_weighs_once():
    whole = torch.nn.ModuleDict({"one": torch.nn.Linear(8, 8), "other": torch.nn.Linear(8, 8)})
    whole["other"].weight = whole["one"].weight
    assert quantize.weight_bytes(whole) == 4 * (64 + 8 + 8)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "kind"), [("edit", "8bit"), ("t2i", "4bit")])
def test_the_share_as_typed(cli, tmp_path, task, kind):
    result = cli(task, "--quantize", kind, "-o", "out")
    assert result.returncode == 0, result.stderr
    (engine,) = json.loads((tmp_path / "out" / "run.json").read_text())["engines"].values()
    assert engine["dtype"] == "float32" and engine["opt"]["quantize"]["transformer"]["of_bfloat16"] <= MOST[kind]


def test_widths_that_4bit_cannot_pack_are_refused(tiny):
    with pytest.raises(SettingsError, match="--quantize text:4bit: none of this model's layers"):
        tiny(quantize="text:4bit")


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    for kind, package in (("8bit", "bitsandbytes"), ("fp8", "torchao")):
        assert f"{package} is not installed; pip install" in quantize.refuse(None, Quantize(text=kind), Optimizations())
