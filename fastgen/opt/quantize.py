"""Fewer bits for the weights of the transformer's blocks and of T5.

What: 8bit and 4bit (NF4) are bitsandbytes' layers, inserted by hand, because diffusers' own config refuses them on a
CPU, where they do run; int8 and fp8 are torchao's; mxfp8 and nvfp4 (Blackwell) are in `block_scaled`. On a GPU all but
4bit also multiply in that type, each token with its own scale, except int8, mxfp8 and nvfp4 in the modulation; on a CPU
all kinds only store the weights. All linear layers of the blocks are quantized, including those of the modulation (a
quarter of FLUX.1's weights), and those that embed noise level and guidance. The layers where tokens enter and leave
stay as they are.
How much: weights of FLUX.1-like blocks 0.50 of bfloat16, mxfp8 0.52, 4bit and nvfp4 0.28 (tests/opt/test_quantize.py).
Time on a CPU: 1.0 to 1.8 times as much (docs/optimizations.md), more with mxfp8 and nvfp4. On an H100 fp8 is published
as 2.97 instead of 4.21 s, both compiled (diffusers-torchao). Not measured here.
Quality: docs/optimizations.md; 4bit and nvfp4 lose most.
When not: if the model fits and the GPU has no arithmetic of that type, because then it is slower. Without --compile on
a GPU torchao's layers are many times slower, so that is refused.

An image must not depend on its batch mates, so scales are per token or per weight only. bitsandbytes' search for
outliers, which looks at all tokens of a batch together, is off.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fastgen.config.fit.memory import BITSANDBYTES, EIGHT_BITS
from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Optimizations, Quantize
from fastgen.config.versions import unfit
from fastgen.errors import SettingsError
from fastgen.opt import blackwell
from fastgen.opt.base import Modules
from fastgen.opt.blackwell import BLOCK_SCALED

if TYPE_CHECKING:
    import torch
    from torch import nn

GROUP = 64
"""Weights in a row of the matrix that share a scale in 4bit."""
MODULATION = "AdaLayerNorm"
"""How the classes begin whose linear layer sees one row per sample."""


def refuse(gpu: Gpu | None, choice: Quantize, others: Optimizations) -> str | None:
    kinds = {choice.transformer, choice.text} - {"none"}
    for package, needed in (("bitsandbytes", kinds & set(BITSANDBYTES)), ("torchao", kinds - set(BITSANDBYTES))):
        if needed and (reason := unfit(package)):
            return reason
    if gpu is not None and "fp8" in kinds and float(gpu.compute_capability or 0) < 8.9:
        return f"fp8 arithmetic needs compute capability 8.9; {gpu.name} has {gpu.compute_capability}; use int8 or 8bit"
    if gpu is not None and (reason := blackwell.refuse(gpu, kinds)):
        return reason
    if gpu is not None and choice.transformer not in ("none", *BITSANDBYTES) and not others.compile.on:
        return "without --compile torchao's layers are many times slower than bfloat16; add --compile"
    offload = others.offload.kind
    moved = {"text": {choice.text}, "model": kinds, "group": kinds}.get(offload, set())
    if "8bit" in moved or (offload == "group" and kinds):
        return f"quantized weights do not follow --offload {offload}; use --offload none" + (
            "" if offload == "group" else " or another kind"
        )
    return None


def apply(modules: Modules, choice: Quantize) -> dict:
    kinds = {"transformer": choice.transformer, "text": choice.text}
    return {part: _apply(modules, part, kind) for part, kind in kinds.items() if kind != "none"}


def enter_thread(choice: Quantize) -> None:
    """How torchao wants its layers compiled: `quantize_` sets this only for its own thread, and cached weights do not
    pass through it."""
    if {choice.transformer, choice.text} - {"none", *BITSANDBYTES}:
        from torchao.quantization.utils import recommended_inductor_config_setter

        recommended_inductor_config_setter()


def _apply(modules: Modules, part: str, kind: str) -> dict:
    """Quantize one part of the model, or take it from the cache. Returns what it weighs now."""
    name = "transformer" if part == "transformer" else modules.parts.large_text
    module = getattr(modules, name)
    started = time.monotonic()
    plain = 2 * sum(parameter.numel() for parameter in module.parameters())
    cached = modules.quantized_cache.get(part)
    if cached is not None and cached.is_there:
        cached.fill(module, modules.device)
        whence, seconds = "cache", cached.seconds
    else:
        _make(modules, module, part, kind)
        whence, seconds = "made", time.monotonic() - started
        if cached is not None:
            cached.keep(module)
    size = weight_bytes(module)
    settle(module, modules.device, modules.dtype)
    if name in modules.away:
        from fastgen.opt.parked import park

        park(module)  # parts that take turns on the device do not fit there together
    return {
        "kind": kind,
        "bytes": size,
        "of_bfloat16": round(size / plain, 3),
        "from": whence,
        "seconds": round(seconds, 2),
    }


def _make(modules: Modules, module: nn.Module, part: str, kind: str) -> None:
    """Quantize the layers of this part that can be quantized."""
    parts = modules.parts
    left_out = parts.whole_text if part == "text" and kind in BITSANDBYTES else ()
    places = parts.quantized if part == "transformer" else ("",)
    how: dict[str, Any] = {"left_out": left_out, "per_sample": parts.per_sample}
    if not sum(replace(module.get_submodule(name), kind, modules.device, modules.dtype, **how) for name in places):
        raise SettingsError(
            f"--quantize {'text:' if part == 'text' else ''}{kind}: none of this model's layers can be quantized like "
            f"that (4bit needs widths that are a multiple of {GROUP}, mxfp8 and nvfp4 of 32); use another kind"
        )
    if part == "transformer":
        own = EIGHT_BITS.get(kind, kind)
        for name in parts.embedders:
            replace(module.get_submodule(name), own, modules.device, modules.dtype, few_rows=True)


def replace(
    module: nn.Module,
    kind: str,
    device: torch.device,
    dtype: torch.dtype,
    left_out: tuple[str, ...] = (),
    few_rows: bool = False,
    per_sample: tuple[str, ...] = (),
) -> int:
    """Quantize every linear layer in a module on the device, one after the other.

    Args:
        left_out: names of layers that stay as they are.
        few_rows: the whole module sees one row per sample.
        per_sample: the beginnings of names, within a block, of layers that see one row per sample.
    Returns:
        How many.
    """
    from torch import nn

    def fits(layer: Any) -> bool:
        if type(layer) is not nn.Linear or (kind in BLOCK_SCALED and not blackwell.fits(layer)):
            return False
        return kind != "4bit" or layer.in_features % GROUP == 0

    found: list[tuple[nn.Module, str, Any]] = [
        (parent, name, layer)
        for parent in module.modules()
        for name, layer in parent.named_children()
        if fits(layer) and name not in left_out
    ]
    # The modulation has a row per sample, not per token. On a GPU integer products need more than 16 rows, and where
    # there are so few, products in mxfp8 or nvfp4 gain nothing.
    modulation = {layer for block in module.children() for layer in _named(block, per_sample)}
    modulation &= {layer for _, _, layer in found}  # not what contains such layers
    modulation |= {layer for parent, _, layer in found if few_rows or type(parent).__name__.startswith(MODULATION)}
    if kind in BITSANDBYTES:
        for parent, name, layer in found:
            setattr(parent, name, _bitsandbytes(layer, kind, device, dtype))
    elif kind in BLOCK_SCALED:
        from fastgen.opt.block_scaled import BlockScaled

        for _, _, layer in found:
            products = blackwell.multiplies(device, layer in modulation)
            weight = BlockScaled.of(layer.to(device).weight.data, kind, products)
            layer.weight = nn.Parameter(weight, requires_grad=False)
    else:
        from torchao.quantization import quantize_

        per_token = {layer for _, _, layer in found} - modulation
        quantize_(module, _torchao(kind, device, False), lambda layer, _: layer in per_token, device=device)
        quantize_(module, _torchao(kind, device, True), lambda layer, _: layer in modulation, device=device)
    return len(found)


def _named(block: nn.Module, beginnings: tuple[str, ...]) -> list[nn.Module]:
    """The layers of a block whose names in it begin like that."""
    return [layer for name, layer in block.named_modules() if beginnings and name.startswith(beginnings)]


def empty_layer(layer: Any, kind: str, device: torch.device, dtype: torch.dtype | None) -> Any:
    """bitsandbytes' layer that replaces a linear one, with its bias and no weight yet; 4bit computes in this type."""
    from bitsandbytes import nn

    size = (layer.in_features, layer.out_features, layer.bias is not None)
    if kind == "8bit":
        from fastgen.opt.quantize_8bit import Linear8bit

        new = Linear8bit(*size, has_fp16_weights=False, threshold=0.0, device="meta")
    else:
        new = nn.Linear4bit(*size, compute_dtype=dtype, quant_type="nf4", compress_statistics=False, device="meta")
    new.bias = layer.bias
    # In training mode 8bit multiplies on a CPU in the type of its input, as the other kinds do there. That is faster
    # than its integer products, and closer to the plain layer.
    return new.train(kind == "8bit" and device.type == "cpu")


def _bitsandbytes(layer: Any, kind: str, device: torch.device, dtype: torch.dtype) -> Any:
    from bitsandbytes import nn

    new = empty_layer(layer, kind, device, dtype)
    if kind == "8bit":
        new.weight = nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    else:
        new.weight = nn.Params4bit(
            layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=False, module=new
        )
    return new.to(device).requires_grad_(False)


def settle(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Let bitsandbytes' layers do what they do only at their first call: some move their weights, and a compiled graph
    would look for them in the wrong place.

    Raises:
        SettingsError: a layer's weights are so large that its products could become infinite.
    """
    import torch

    with torch.no_grad():
        layer: Any
        for name, layer in module.named_modules():
            if type(layer).__name__ in ("Linear8bit", "Linear4bit"):
                layer(torch.zeros(1, layer.in_features, device=device, dtype=dtype))
            if (
                type(layer).__name__ == "Linear8bit"
                and not layer.training
                and layer.largest() > torch.finfo(torch.half).max
            ):
                raise SettingsError(f"--quantize 8bit: the weights of {name} are too large for its float16; use int8")


def _torchao(kind: str, device: torch.device, few_rows: bool) -> Any:
    from torchao import quantization as ao

    if device.type == "cpu":
        return ao.Int8WeightOnlyConfig() if kind == "int8" else ao.Float8WeightOnlyConfig()
    if kind == "int8":
        return ao.Int8WeightOnlyConfig() if few_rows else ao.Int8DynamicActivationInt8WeightConfig()
    return ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow())


def weight_bytes(module: nn.Module) -> int:
    """Bytes that a module's weights take in memory, including the scales of quantized ones."""
    sizes: dict[tuple[int, int], int] = {}
    for tensor in module.state_dict().values():
        parts = [tensor]
        while parts:
            part = parts.pop()
            if hasattr(part, "__tensor_flatten__"):  # torchao: a wrapper around what is stored
                parts += [getattr(part, name) for name in part.__tensor_flatten__()[0]]
            elif hasattr(part, "nbytes"):
                # T5 has its table of tokens under two names.
                sizes[part.untyped_storage()._cdata, part.data_ptr()] = part.nbytes
    return sum(sizes.values())
