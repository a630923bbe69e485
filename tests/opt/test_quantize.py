"""What quantized weights weigh, that they are used, and that a picture stays independent of its company."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from fastgen.config import versions
from fastgen.config.families import FLUX1
from fastgen.config.optimizations import Optimizations, Quantize
from fastgen.errors import SettingsError
from fastgen.opt import quantize
from tests.opt.conftest import draw

CPU = torch.device("cpu")
MOST = {"8bit": 0.55, "int8": 0.55, "fp8": 0.55, "4bit": 0.35, "mxfp8": 0.56, "nvfp4": 0.35}
"""Of the weights in bfloat16."""
SHARE = {"mxfp8": (1 + 1 / 32) / 2, "nvfp4": (0.5 + 1 / 16) / 2}
"""The same without what is not quantized: a byte of scale for 32 or 16 weights."""


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
    assert kind not in SHARE or quantize.weight_bytes(packed) / plain == pytest.approx(SHARE[kind], abs=0.001)


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


def test_on_a_gpu_int8_multiplies_only_where_there_is_a_row_per_token(blocks, monkeypatch):
    """Products of CUDA in int8 need more than 16 rows, and the modulation has as many as the batch has samples."""
    rows = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: rows.update({name: given[0][..., 0].numel()}))
        for name, layer in blocks.named_modules()
        if type(layer) is torch.nn.Linear
    ]
    hidden, text, temb = (torch.randn(2, *shape, dtype=torch.bfloat16) for shape in ((24, 1536), (8, 1536), (1536,)))
    with torch.inference_mode():
        for block in blocks:
            block(hidden_states=hidden, encoder_hidden_states=text, temb=temb)
    for hook in hooks:
        hook.remove()
    real = quantize._torchao
    monkeypatch.setattr(quantize, "_torchao", lambda kind, device, few: real(kind, torch.device("cuda"), few))
    packed = copy.deepcopy(blocks)
    assert quantize.replace(packed, "int8", CPU, torch.bfloat16) == len(rows) == 20
    stored_only = {name for name in rows if packed.get_submodule(name).weight.act_quant_kwargs is None}
    assert stored_only == {name for name, count in rows.items() if count <= 2}
    assert stored_only == {"0.norm1.linear", "0.norm1_context.linear", "1.norm.linear"}
    whole = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64)).to(torch.bfloat16)
    quantize.replace(whole, "int8", CPU, torch.bfloat16, few_rows=True)
    assert all(whole[i].weight.act_quant_kwargs is None for i in (0, 2))


def eight_bit(cls: type, plain: torch.nn.Linear) -> torch.nn.Module:
    """The layer as on a GPU: with products in 8 bits and float16 around them."""
    from bitsandbytes.nn import Int8Params

    layer = cls(plain.in_features, plain.out_features, has_fp16_weights=False, threshold=0.0)
    layer.weight = Int8Params(plain.weight.data.clone(), requires_grad=False, has_fp16_weights=False)
    layer.bias = torch.nn.Parameter(plain.bias.data.clone(), requires_grad=False)
    return layer.to(CPU).eval().requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_8bit_does_not_overflow_where_bitsandbytes_does(dtype):
    from bitsandbytes.nn import Linear8bitLt

    from fastgen.opt.quantize_8bit import Linear8bit

    torch.manual_seed(0)
    plain = torch.nn.Linear(1536, 256).to(dtype).requires_grad_(False)
    theirs, ours = eight_bit(Linear8bitLt, plain), eight_bit(Linear8bit, plain)

    def distance(got: torch.Tensor, want: torch.Tensor) -> float:
        return float((got.float() - want.float()).norm() / want.float().norm())

    with torch.inference_mode():
        for size in (0.0, 1e-3, 1.0, 300.0):  # what does not overflow is the same but for rounding
            x = (torch.randn(2, 5, 1536) * size).to(dtype)
            assert distance(ours(x), theirs(x)) < (2e-3 if dtype == torch.float32 else 5e-3)
            assert ours(x).dtype == dtype
        inputs = torch.randn(2, 5, 1536).to(dtype)
        inputs[0, 0, 7] = 1e5  # more than float16 can be, as some activations of FLUX are
        outputs = (torch.randn(2, 5, 1536) * 60000).to(dtype).clamp(-65000, 65000)
        for x in (inputs, 4 * outputs):
            assert not theirs(x).isfinite().all()
            assert ours(x).isfinite().all() and distance(ours(x), plain(x)) < 0.03
        assert not ours(torch.full((1, 1536), torch.inf)).isfinite().all(), "a broken model is still noticed"


def test_8bit_refuses_weights_that_would_overflow_in_any_case():
    from fastgen.opt.quantize_8bit import Linear8bit

    plain = torch.nn.Linear(1536, 4, bias=True).requires_grad_(False)
    plain.weight[2] = 50.0
    layers = torch.nn.ModuleDict({"wide": eight_bit(Linear8bit, plain)})
    assert layers["wide"].largest() == pytest.approx(50 * 1536, rel=1e-3)
    with pytest.raises(SettingsError, match=r"--quantize 8bit: the weights of wide are too large.*use int8"):
        quantize.settle(layers, CPU, torch.float32)


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


def test_a_package_that_is_missing_or_too_old_is_named(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", missing)
    monkeypatch.setattr(versions, "find_spec", lambda name: None)
    for kind, package in (("8bit", "bitsandbytes"), ("fp8", "torchao")):
        assert f"{package} is not installed; pip install" in quantize.refuse(None, Quantize(text=kind), Optimizations())
    monkeypatch.setattr(versions, "version", lambda name: "0.17.0")
    assert quantize.refuse(None, Quantize(text="fp8"), Optimizations()) == (
        "torchao 0.17.0 is too old: 0.18 or newer is needed; pip install 'torchao>=0.18'"
    )


@pytest.mark.parametrize(
    ("away", "order"),
    [
        ((), ["make transformer", "make text"]),
        (FLUX1.text, ["make transformer", "make text", "park T5EncoderModel"]),
        (
            (*FLUX1.text, "transformer", "vae"),
            ["make transformer", "park FluxTransformer2DModel", "make text", "park T5EncoderModel"],
        ),
    ],
)
def test_a_part_makes_way_before_the_next_is_quantized(tiny, monkeypatch, away, order):
    """Parts that take turns may not fit onto the device together."""
    modules, found, make = copy.deepcopy(tiny().modules), [], quantize._make

    def making(modules, module, part, kind):
        found.append(f"make {part}")
        make(modules, module, part, kind)

    monkeypatch.setattr(quantize, "_make", making)
    monkeypatch.setattr("fastgen.opt.parked.park", lambda module: found.append(f"park {type(module).__name__}"))
    modules.away = away
    quantize.apply(modules, Quantize.parse("int8,text:int8"))
    assert found == order
