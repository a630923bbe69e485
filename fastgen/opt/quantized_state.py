"""A module with quantized layers -> plain tensors and a description of how they belong together, and back. Does not
know files.

bitsandbytes and torchao each have a way to store their layers, but both need the full-precision layers first. Here the
tensors are put into a module without weights, so that the full weights are never read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from fastgen.opt.quantize import empty_layer


def take_apart(module: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, tuple]]:
    """Every weight and buffer as tensors of plain types, and, by the name of the weight, what else `put_together`
    needs.

    Call this before the first forward pass, in which bitsandbytes lays out its weights for the CPU.
    """
    tensors: dict[str, torch.Tensor] = {}
    about: dict[str, tuple] = {}
    seen: dict[int, str] = {}
    for name, value in _named(module):
        if id(value) in seen:  # T5 has its table of tokens under two names
            about[name] = ("same", seen[id(value)])
            continue
        seen[id(value)] = name
        layer = module.get_submodule(name.rpartition(".")[0])
        parts = {"": value.data}
        if hasattr(value, "SCB"):
            parts["scale"] = value.SCB
            about[name] = ("8bit",)
        elif (state := getattr(value, "quant_state", None)) is not None:
            parts |= {"scale": state.absmax, "code": state.code}
            about[name] = ("4bit", state.shape, state.dtype, state.blocksize, layer.compute_dtype)
        elif hasattr(value, "__tensor_flatten__"):
            names, context = value.__tensor_flatten__()
            parts = {part: getattr(value, part) for part in names}
            about[name] = ("torchao", type(value), list(names), context, value.size(), value.stride())
        else:
            about[name] = ("plain",)
        tensors |= {f"{name}:{part}": tensor.detach() for part, tensor in parts.items()}
    return tensors, about


def put_together(
    module: torch.nn.Module, tensors: dict[str, torch.Tensor], about: dict[str, tuple], device: torch.device
) -> None:
    """Put tensors that were taken apart into a module without weights (on the meta device), on this device.

    Raises:
        ValueError: they belong to another module.
    """
    wanted = {name for name, _ in _named(module)}
    if wanted != about.keys():
        raise ValueError(f"these are the weights of another model: {sorted(wanted ^ about.keys())[:3]}")
    made: dict[str, torch.Tensor] = {}
    for name, (kind, *rest) in about.items():
        path, _, leaf = name.rpartition(".")
        if kind == "same":
            setattr(module.get_submodule(path), leaf, made[rest[0]])
            continue
        if kind == "torchao":
            cls, names, context, size, stride = rest
            inner = {part: tensors.pop(f"{name}:{part}").to(device) for part in names}
            value = cls.__tensor_unflatten__(inner, context, size, stride)
        else:
            value = tensors.pop(f"{name}:").to(device)
        layer = module.get_submodule(path)
        if kind == "8bit":
            from bitsandbytes.nn import Int8Params

            layer = _exchange(module, path, empty_layer(layer, kind, device, None))
            scale = tensors.pop(f"{name}:scale").to(device)
            value = Int8Params(value, requires_grad=False, has_fp16_weights=False, CB=value, SCB=scale)
        elif kind == "4bit":
            value = _params4bit(
                _exchange(module, path, empty_layer(layer, kind, device, rest[3])),
                value,
                *rest[:3],
                tensors.pop(f"{name}:scale").to(device),
                tensors.pop(f"{name}:code").to(device),
            )
            layer = value.module
        if leaf in layer._parameters and not isinstance(value, torch.nn.Parameter):
            value = torch.nn.Parameter(value, requires_grad=False)
        setattr(layer, leaf, value)
        made[name] = value


def _named(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Weights and buffers by name, a shared one under each of its names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _exchange(module: torch.nn.Module, path: str, layer: Any) -> Any:
    """Replace the layer at this position."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, layer)
    return layer


def _params4bit(layer: Any, data: torch.Tensor, *about: Any) -> Any:
    """`about`: shape, type, block size, scales and code book."""
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import Params4bit

    shape, dtype, blocksize, scale, code = about
    layer.quant_state = QuantState(scale, shape, code, blocksize, "nf4", dtype)
    return Params4bit(
        data,
        requires_grad=False,
        quant_state=layer.quant_state,
        blocksize=blocksize,
        compress_statistics=False,
        quant_type="nf4",
        bnb_quantized=True,
        module=layer,
    )
