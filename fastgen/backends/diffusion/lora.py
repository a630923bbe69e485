"""Merges LoRAs into a model's weights, so that they cost nothing per step. `fastgen.input.weights` knows what is in a
file and where it belongs."""

from __future__ import annotations

import torch
from safetensors import safe_open
from torch import nn

from fastgen.input.weights.layers import Layer, Piece
from fastgen.input.weights.lora import Change, Plan
from fastgen.opt.layout import JOINED


@torch.no_grad()
def merge(path: str, plan: Plan, scale: float, modules: dict[str, nn.Module]) -> None:
    """Change the weights of a model's parts. Computes in float32, whatever type they are stored in.

    Args:
        path: the file.
        plan: what is in it.
        modules: part -> module. Missing parts are left out.
    """
    with safe_open(path, "pt") as file:
        for change in plan.changes:
            if (module := modules.get(change.layer.part)) is not None:
                device = next(iter(views(module, change).values())).device
                tensors = {role: file.get_tensor(name).to(device).float() for role, name in change.tensors.items()}
                _apply(module, change, tensors, scale)


def _apply(module: nn.Module, change: Change, tensors: dict[str, torch.Tensor], scale: float) -> None:
    layer = change.layer
    weight = _read(module, layer, "weight")
    factor = scale
    product = _product(tensors)
    if product is not None:
        alpha = tensors["alpha"].item() if "alpha" in tensors else None
        factor = scale * change.factor(alpha)
        merged = weight + factor * product
        if "magnitude" in tensors:
            merged *= _stretch(merged, tensors["magnitude"])
        weight = merged
    if "difference" in tensors:
        weight = weight + scale * tensors["difference"]
    if "value" in tensors:
        weight = weight + scale * (tensors["value"] - weight)
    _write(module, layer, "weight", weight)
    for role, times in (("up_bias", factor), ("bias_difference", scale)):
        if role in tensors:
            _write(module, layer, "bias", _read(module, layer, "bias") + times * tensors[role])


def _product(tensors: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """What is added to a weight (outputs, inputs), before its factor; None if the tensors are no matrices."""
    if "down" in tensors:
        return tensors["up"].flatten(1) @ tensors["down"].flatten(1)
    kind = next((kind for kind in ("lokr", "hada") if any(role.startswith(kind) for role in tensors)), "")
    if not kind:
        return None
    first, second = (
        tensors[f"{kind}_{side}"]
        if f"{kind}_{side}" in tensors
        else tensors[f"{kind}_{side}_a"] @ tensors[f"{kind}_{side}_b"]
        for side in ("w1", "w2")
    )
    return torch.kron(first, second) if kind == "lokr" else first * second


def _stretch(merged: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """DoRA: scales every row (or column) of merged weights (outputs, inputs) to the length given in the file."""
    magnitude = magnitude.flatten(1) if magnitude.dim() > 1 else magnitude[:, None]
    by_column = magnitude.shape[0] == 1 and merged.shape[0] > 1
    length = merged.norm(dim=0 if by_column else 1, keepdim=True)
    return torch.where(length > 0, magnitude / length, 0.0)


def _read(module: nn.Module, layer: Layer, kind: str) -> torch.Tensor:
    """A layer's weight or bias, in float32."""
    return torch.cat([_rows(module, piece, kind).float() for piece in layer.pieces])


def _write(module: nn.Module, layer: Layer, kind: str, value: torch.Tensor) -> None:
    start = 0
    for piece in layer.pieces:
        stop = start + piece.stop - piece.start
        _rows(module, piece, kind).copy_(value[start:stop])
        start = stop


def views(module: nn.Module, change: Change) -> dict[str, torch.Tensor]:
    """Name -> weight or bias of the module's layers that a change writes."""
    kinds = ["weight", *(["bias"] if {"up_bias", "bias_difference"} & change.tensors.keys() else [])]
    return {f"{piece.path}.{kind}": _whole(module, piece.path, kind) for piece in change.layer.pieces for kind in kinds}


def _rows(module: nn.Module, piece: Piece, kind: str) -> torch.Tensor:
    return _whole(module, piece.path, kind)[piece.start : piece.stop]


def _whole(module: nn.Module, path: str, kind: str) -> torch.Tensor:
    """The weight or bias of a layer, where the module has it: alone, or joined with others (`opt/layout`)."""
    path = f"text_model.{path}" if hasattr(module, "text_model") else path  # CLIP in older versions of transformers
    owner, _, name = path.rpartition(".")
    parent = module.get_submodule(owner)
    if hasattr(parent, name):
        found: torch.Tensor = getattr(getattr(parent, name), kind).data
        return found
    joined, parts = next((joined, parts) for joined, parts in JOINED.items() if name in parts)
    together: torch.Tensor = getattr(getattr(parent, joined), kind).data
    return together.chunk(len(parts))[parts.index(name)]
