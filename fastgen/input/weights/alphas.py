"""The alphas of a LoRA that are not among its tensors: in its metadata, where diffusers writes them, or in PEFT's
`adapter_config.json` beside the file. Knows shapes of layers, not what is done with an alpha."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastgen.config.settings import PEFT_CONFIG, beside_lora
from fastgen.input.weights.layers import Layer
from fastgen.input.weights.safetensors import BadFile, Header, read_header

PLAIN_BEGINNINGS = ("gaussian", "eva", "orthogonal", "mica")
"""Values of PEFT's `init_lora_weights` that leave the model's own weights as they are. Others, such as pissa, olora,
corda and loftq, train a difference to weights that they changed first."""


def read(path: Path) -> Header:
    """The header of a LoRA; its metadata has what PEFT writes beside the file. Raises BadFile."""
    header, beside = read_header(path), beside_lora(path)
    if beside is None:
        return header
    try:
        return replace(header, metadata=header.metadata | {PEFT_CONFIG: beside.read_text("utf-8")})
    except (OSError, UnicodeError):
        raise BadFile(f"{PEFT_CONFIG} beside it cannot be read; save the LoRA again") from None


def of(layer: Layer, header: Header) -> tuple[float | None, bool, int]:
    """Alpha, whether it is rank-stabilized, and the rank that it is divided by (0: that of the matrices), from what
    diffusers and PEFT write."""
    source = PEFT_CONFIG if PEFT_CONFIG in header.metadata else "lora_adapter_metadata"
    try:
        about = _parsed(header.metadata.get(source, "{}"))
        if source != PEFT_CONFIG:
            prefix = f"{layer.part}."
            about = {key.removeprefix(prefix): value for key, value in about.items() if key.startswith(prefix)}
        else:
            _refuse(about)
        # PEFT divides by its own rank, also where the matrices of a LoKr are whole.
        other = about.get("peft_type") in ("LOKR", "LOHA")
        alpha = _of_layer(layer, about, "alpha_pattern", "alpha" if other else "lora_alpha")
        rank = _of_layer(layer, about, "rank_pattern", "r") if other else 0
        return None if alpha is None else float(alpha), bool(about.get("use_rslora")), int(rank or 0)
    except (AttributeError, TypeError, ValueError, re.error):
        where = f"{PEFT_CONFIG} beside it" if source == PEFT_CONFIG else f"its metadata ({source})"
        raise BadFile(f"{where} cannot be read; save the LoRA again") from None


@lru_cache(4)
def _parsed(text: str) -> Any:
    """The same for all layers of a file."""
    return json.loads(text)


def _refuse(about: dict) -> None:
    """Raise BadFile if the matrices of an adapter are not all of it."""
    if about.get("fan_in_fan_out"):
        raise BadFile(f"{PEFT_CONFIG} beside it has fan_in_fan_out, which is not supported; save it without")
    begun = about.get("init_lora_weights", True)
    if isinstance(begun, str) and begun.lower() not in PLAIN_BEGINNINGS:
        raise BadFile(
            f"{PEFT_CONFIG} beside it has init_lora_weights {begun}, which changes the model's own weights too; save "
            "it as a plain LoRA (PEFT: save_pretrained with path_initial_model_for_weight_conversion)"
        )


def _of_layer(layer: Layer, about: dict, patterns: str, usual: str) -> Any:
    """The value of the first pattern that fits a layer, else the usual one."""
    for pattern, own in (about.get(patterns) or {}).items():
        if any(re.match(rf"(.*\.)?({pattern})$", name) for name in (layer.name, layer.pieces[0].path)):
            return own
    return about.get(usual)
