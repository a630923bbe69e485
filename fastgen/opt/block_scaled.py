"""A weight in one of Blackwell's block formats, MXFP8 or NVFP4, and its product with tokens. Does not know models.

Weights and tokens are cut into blocks of 32 (MXFP8) or 16 (NVFP4) neighbours in a row, each with its own scale; the
GPU multiplies them as they are (cuBLAS, by `torch._scaled_mm`). Conversion is torchao's (`torchao.prototype.
mx_formats`, for MXFP8 the same in a form that code for CPUs can be compiled of). Its own NVFP4 layers are not used:
they either scale all tokens of a batch by their common maximum, so that an image depends on its batch mates, or leave
out that scale for weights too, and blocks of weights below 0.09 then lose bits. Here each token has an outer scale of
its own, and so has the weight: powers of two, so that they round nothing.

Elsewhere than on a GPU the same values are multiplied in the type of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch.nn import functional
from torchao.prototype.mx_formats.kernels import f4_unpacked_to_f32, unpack_uint4
from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize
from torchao.prototype.mx_formats.utils import from_blocked, to_blocked
from torchao.utils import TorchAOBaseTensor

BLOCK = {"mxfp8": 32, "nvfp4": 16}
"""Values that share a scale."""
READ_AS = {
    "mxfp8": (torch.float8_e4m3fn, torch.float8_e8m0fnu),
    "nvfp4": (torch.float4_e2m1fn_x2, torch.float8_e4m3fn),
}
"""The types of values and scales for cuBLAS. NVFP4's values and MXFP8's scales are kept as bytes, because compiled code
for CPUs does not know their types."""
E4M3, E2M1 = 448.0, 6.0
"""The largest value of each type."""
MANTISSA = 23
"""Bits, in float32."""
SMALLEST = 2.0**-100
"""The least scale, so that none is zero."""


class BlockScaled(TorchAOBaseTensor):
    """A weight (out, in) of a linear layer.

    Args:
        qdata: (out, in) in E4M3, or (out, in / 2) bytes of two E2M1 values.
        scale: of each block, in the order that cuBLAS reads (`to_blocked`).
        outer: NVFP4's scale of the whole weight, float32, no dimensions.
        orig_dtype: the type that the weight had, and has for the rest of the model.
        products: whether tokens are converted too. If not, the weight is only stored like this.
    """

    tensor_data_names: ClassVar = ["qdata", "scale"]
    optional_tensor_data_names: ClassVar = ["outer"]
    tensor_attribute_names: ClassVar = ["kind", "orig_dtype", "products"]

    def __new__(
        cls,
        qdata: torch.Tensor,
        scale: torch.Tensor,
        kind: str,
        orig_dtype: torch.dtype,
        products: bool,
        outer: torch.Tensor | None = None,
    ) -> BlockScaled:
        size = (qdata.shape[0], qdata.shape[1] * (2 if kind == "nvfp4" else 1))
        return torch.Tensor._make_wrapper_subclass(cls, size, dtype=orig_dtype, device=qdata.device)

    def __init__(
        self,
        qdata: torch.Tensor,
        scale: torch.Tensor,
        kind: str,
        orig_dtype: torch.dtype,
        products: bool,
        outer: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.qdata = qdata
        self.scale = scale
        self.outer = outer
        self.kind = kind
        self.orig_dtype = orig_dtype
        self.products = products

    @classmethod
    def of(cls, weight: torch.Tensor, kind: str, products: bool) -> BlockScaled:
        """Convert a weight; `blackwell.fits` says which can be."""
        outer = _outer(weight.abs().max()) if kind == "nvfp4" else None
        qdata, scale = _convert(weight, kind, outer)
        return cls(qdata, to_blocked(scale), kind, weight.dtype, products, outer)

    def dequantize(self) -> torch.Tensor:
        scale = from_blocked(self.scale, self.shape[0], self.shape[1] // BLOCK[self.kind])
        plain = _values(self.qdata, scale, self.kind)
        return (plain if self.outer is None else plain * self.outer).to(self.orig_dtype)

    def _quantization_type(self) -> str:
        return f"{self.kind}, products={self.products}"


def _linear(tokens: torch.Tensor, weight: BlockScaled, bias: torch.Tensor | None = None) -> torch.Tensor:
    """(..., in) -> (..., out). A row of the result depends on that row of the tokens only."""
    if not weight.products:
        return functional.linear(tokens, weight.dequantize().to(tokens.dtype), bias)
    rows = tokens.reshape(-1, weight.shape[1]).contiguous()
    own, outer = weight.outer, None
    if own is not None:
        outer = _outer(rows.abs().amax(-1, keepdim=True))
    qdata, scale = _convert(rows, weight.kind, outer)
    result = _product(qdata, scale, weight, tokens.dtype)
    if own is not None and outer is not None:
        result = result * outer.to(result.dtype) * own.to(result.dtype)
    if bias is not None:
        result = result + bias
    return result.to(tokens.dtype).reshape(*tokens.shape[:-1], weight.shape[0])


def _product(qdata: torch.Tensor, scale: torch.Tensor, weight: BlockScaled, dtype: torch.dtype) -> torch.Tensor:
    """Rows (M, in) times the weight -> (M, out), without outer scales."""
    if qdata.device.type == "cpu":
        dtype = torch.bfloat16 if dtype == torch.float16 else dtype  # without outer scales, sums are large
        own = from_blocked(weight.scale, weight.shape[0], weight.shape[1] // BLOCK[weight.kind])
        rows, columns = _values(qdata, scale, weight.kind), _values(weight.qdata, own, weight.kind)
        return functional.linear(rows.to(dtype), columns.to(dtype))
    read, blocks = READ_AS[weight.kind]
    return torch._scaled_mm(
        qdata.view(read),
        weight.qdata.view(read).t(),
        to_blocked(scale).view(blocks),
        weight.scale.view(blocks),
        out_dtype=torch.bfloat16,
    )


def _convert(rows: torch.Tensor, kind: str, outer: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows -> values, and scales (rows, blocks). NVFP4's have been divided by `outer`."""
    if outer is not None:
        scale, values = nvfp4_quantize(rows.float() / outer)
        return values, scale.view(len(rows), -1)
    blocks = rows.float().view(len(rows), -1, BLOCK[kind])
    exponent = _exponent(blocks.abs().amax(-1, keepdim=True) / E4M3)
    values = (blocks / _two_to(exponent)).clamp(-E4M3, E4M3).to(torch.float8_e4m3fn)
    return values.view(rows.shape), exponent.to(torch.uint8).squeeze(-1)


def _values(values: torch.Tensor, scale: torch.Tensor, kind: str) -> torch.Tensor:
    """What values and scales stand for, without an outer scale, in float32."""
    if kind == "mxfp8":
        plain, scale = values.float(), _two_to(scale.to(torch.int32))
    else:
        plain, scale = f4_unpacked_to_f32(unpack_uint4(values)), scale.float()
    return (plain.view(len(plain), -1, BLOCK[kind]) * scale.unsqueeze(-1)).view(plain.shape)


def _outer(largest: torch.Tensor) -> torch.Tensor:
    """The smallest power of two, float32, by which this value can be divided to be within NVFP4's range."""
    return _two_to(_exponent(largest.float() / (E4M3 * E2M1)))


def _exponent(number: torch.Tensor) -> torch.Tensor:
    """That of the next power of two, as it is stored in E8M0 and in float32: plus 127, int32. 255: not finite."""
    bits = number.clamp(min=SMALLEST).view(torch.int32)
    return (bits >> MANTISSA) + ((bits & ((1 << MANTISSA) - 1)) > 0)


def _two_to(exponent: torch.Tensor) -> torch.Tensor:
    """255 stands for infinity here, which makes whatever is divided by it or multiplied with it not finite or zero."""
    return (exponent << MANTISSA).view(torch.float32)


@BlockScaled.implements_torch_function(functional.linear)
def _(func: Callable[..., Any], types: Any, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor:
    return _linear(*args, **kwargs)


torch.serialization.add_safe_globals([BlockScaled])
