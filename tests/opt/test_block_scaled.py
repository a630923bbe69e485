"""MXFP8 and NVFP4: the values are torchao's, a row of a product depends on its own row only, and what a GPU is given
passes PyTorch's checks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.mx_tensor import MXTensor
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor
from torchao.quantization.quantize_.common.kernel_preference import KernelPreference

from fastgen.opt import blackwell, quantize
from fastgen.opt.block_scaled import BlockScaled
from tests.opt.conftest import draw

CPU = torch.device("cpu")
KINDS = ("mxfp8", "nvfp4")
STORED = {"mxfp8": 0.03, "nvfp4": 0.11}
"""The most that a weight may be off, relative. 0.027 and 0.095 for normal ones."""
MULTIPLIED = {"mxfp8": 0.045, "nvfp4": 0.16}
"""The same for products. 0.038 and 0.134."""


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def distance(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


def layer(kind: str, products: bool, dtype: torch.dtype, width: int = 512) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """A layer, and the same with its weight in the format."""
    plain = torch.nn.Linear(width, 768).to(dtype).requires_grad_(False)
    plain.weight.copy_(torch.randn(768, width) * 0.02)
    packed = torch.nn.Linear(width, 768).to(dtype).requires_grad_(False)
    packed.bias = plain.bias
    packed.weight = torch.nn.Parameter(BlockScaled.of(plain.weight, kind, products), requires_grad=False)
    return plain, packed


def test_mxfp8_is_torchaos():
    rows = torch.randn(128, 256) * torch.logspace(-8, 8, 128).unsqueeze(1)
    named = {"scaling_mode": ScaleCalculationMode.RCEIL, "kernel_preference": KernelPreference.EMULATED}
    theirs = MXTensor.to_mx(rows, torch.float8_e4m3fn, 32, is_swizzled_scales=True, **named)
    ours = BlockScaled.of(rows, "mxfp8", True)
    assert (ours.qdata.view(torch.uint8) == theirs.qdata.view(torch.uint8)).all()
    assert (ours.scale == theirs.scale.view(torch.uint8).flatten()).all()
    assert torch.equal(ours.dequantize(), theirs.dequantize())
    tokens = torch.randn(3, 256)
    want = functional.linear(MXTensor.to_mx(tokens, torch.float8_e4m3fn, 32, **named).dequantize(), theirs.dequantize())
    assert distance(functional.linear(tokens, ours), want) < 1e-6


def test_nvfp4_is_torchaos_with_an_outer_scale():
    rows = torch.randn(128, 256) * 0.003
    ours = BlockScaled.of(rows, "nvfp4", True)
    theirs = NVFP4Tensor.to_nvfp4(rows, per_tensor_scale=ours.outer, is_swizzled_scales=True)
    assert (ours.qdata == theirs.qdata).all() and torch.equal(ours.dequantize(), theirs.dequantize())
    assert float(ours.outer).hex().startswith("0x1.0000000000000p"), "a power of two"
    without = NVFP4Tensor.to_nvfp4(rows).dequantize()
    assert distance(ours.dequantize(), rows) < STORED["nvfp4"] < 0.5 < distance(without, rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_layer_is_as_close_as_its_bits_allow(kind, products, dtype):
    plain, packed = layer(kind, products, dtype)
    tokens = torch.randn(2, 70, 512).to(dtype)
    got, want = packed(tokens), plain(tokens)
    assert got.dtype == dtype and got.shape == want.shape
    assert 0.01 < distance(got, want) < (MULTIPLIED if products else STORED)[kind]
    assert distance(packed(tokens.transpose(0, 1)), want.transpose(0, 1)) < MULTIPLIED[kind], "any strides"


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_of_weights_and_tokens_do_not_matter(kind):
    plain, packed = layer(kind, True, torch.float32)
    tokens = torch.randn(9, 512) * torch.logspace(-6, 5, 9).unsqueeze(1)  # each as close as the others
    got, want = packed(tokens) - plain.bias, plain(tokens) - plain.bias
    assert max(map(distance, got[2:], want[2:])) < 1.2 * MULTIPLIED[kind]
    assert distance(packed(1000 * tokens[:2]) - plain.bias, 1000 * want[:2]) < 1.2 * MULTIPLIED[kind]
    for size in (1e-4, 1e4):
        assert (
            distance(BlockScaled.of(size * plain.weight, kind, True).dequantize(), size * plain.weight) < STORED[kind]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_depends_on_itself_only(kind):
    _, packed = layer(kind, True, torch.float32)
    tokens = torch.randn(2, 5, 512)
    others = torch.cat([tokens[:1], 3e4 * torch.randn(1, 5, 512), torch.zeros(1, 5, 512)])
    alone, together = packed(tokens[:1]), packed(others)
    assert distance(together[0], alone[0]) < 1e-6
    assert torch.equal(together[2], packed.bias.expand(5, -1)), "nothing times anything is nothing"
    others[1, 2, 3], others[1, 3, 3] = torch.nan, torch.inf
    bad = ~packed(others).isfinite().all(-1)
    assert bad.nonzero().tolist() == [[1, 2], [1, 3]], "a broken model is still noticed, row by row"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_gpu_is_given_passes_pytorchs_checks(kind, monkeypatch):
    """Tensors without data go the way of a GPU, up to the product itself."""
    _, packed = layer(kind, True, torch.bfloat16)
    packed = packed.to("meta")
    real, given = torch._scaled_mm, []
    monkeypatch.setattr(torch, "_scaled_mm", lambda *args, **named: given.append(args) or real(*args, **named))
    for count in (1, 2, 77, 1024):
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            found = packed(torch.empty(1, count, 512, device="meta", dtype=dtype))
            assert (found.shape, found.dtype) == ((1, count, 768), dtype)
    types = {
        "mxfp8": (torch.float8_e4m3fn, torch.float8_e8m0fnu),
        "nvfp4": (torch.float4_e2m1fn_x2, torch.float8_e4m3fn),
    }
    values, scales = types[kind]
    assert len(given) == 12 and all([one.dtype for one in args] == [values, values, scales, scales] for args in given)
    assert all(args[0].is_contiguous() and args[1].t().is_contiguous() for args in given), "the only layout of 12.x"
    with pytest.raises(RuntimeError, match=r"(?i)scal"):  # so the check sees something
        real(given[0][0], given[0][1], given[0][2][:-1], given[0][3], out_dtype=torch.bfloat16)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_it_compiles_as_a_whole(kind, backend):
    _, packed = layer(kind, True, torch.float32)
    tokens = torch.randn(2, 7, 512)
    torch._dynamo.reset()
    with torch.inference_mode():
        found = torch.compile(packed, backend=backend, fullgraph=True)(tokens)
        assert distance(found, packed(tokens)) < 1e-6
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_as_a_gpu_would_make_them(tiny, monkeypatch, kind):
    """With products, which a CPU leaves out."""
    plain = draw(tiny(dtype=torch.bfloat16)).float()
    monkeypatch.setattr(blackwell, "multiplies", lambda device, few_rows: not few_rows)
    made = tiny(dtype=torch.bfloat16, quantize=kind)
    weights = [one for one in made.modules.transformer.parameters() if isinstance(one, BlockScaled)]
    assert {one.products for one in weights} == {True, False}
    assert 0.01 < distance(draw(made), plain) < {"mxfp8": 0.1, "nvfp4": 0.4}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_do_not_fit_stay_plain(kind):
    module = torch.nn.Sequential(*(torch.nn.Linear(*size) for size in ((48, 32), (64, 24), (64, 32), (32, 16))))
    assert quantize.replace(module, kind, CPU, torch.float32) == 2
    assert [isinstance(one.weight, BlockScaled) for one in module] == [False, False, True, True]
    assert [blackwell.multiplies(torch.device(name), few) for name, few in (("cuda", False), ("cuda", True))] == [
        True,
        False,
    ]
    assert not any(one.weight.products for one in module[2:]), "on a CPU they are only stored"


def test_where_the_modulation_is(monkeypatch):
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock

    monkeypatch.setattr(blackwell, "multiplies", lambda device, few_rows: not few_rows)
    block = FluxSingleTransformerBlock(128, 2, 64)
    quantize.replace(block, "nvfp4", CPU, torch.float32)
    stored = [
        name for name, one in block.named_modules() if isinstance(one, torch.nn.Linear) and not one.weight.products
    ]
    assert stored == ["norm.linear"]
