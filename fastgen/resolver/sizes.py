"""The sizes of a model's parts: parameters, and which of them can be quantized or streamed. FLUX.1's are reckoned from
its configs, those of other families read from the headers of their weights.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from fastgen.config.families import FLUX1, PARTS, Parts
from fastgen.config.fit.memory import Part, Sizes
from fastgen.config.model_cards import ModelCard
from fastgen.errors import ModelError
from fastgen.input.weights import flux
from fastgen.input.weights.folders import read_shapes
from fastgen.input.weights.layers import Shape
from fastgen.opt.quantize import GROUP

Shapes = dict[str, Shape]
KEPT_BY_BITSANDBYTES = ".wo.weight"
"""The layers of T5 that bitsandbytes' kinds leave out (`opt.quantize`)."""
_T5_LINEAR = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")
VAE_DEFAULTS = {"layers_per_block": 1, "in_channels": 3, "out_channels": 3, "latent_channels": 4}
"""Of diffusers, for what a config does not set."""
_ALWAYS_THERE = ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention")


def read(card: ModelCard) -> Sizes | None:
    """The sizes of a model; None if they are not known."""
    if not card.path or card.family not in PARTS:  # it is not on this machine
        return None
    parts = PARTS[card.family]
    if parts == FLUX1:
        names = ("transformer", *parts.text, "vae")
        return of_flux(*(json.loads(Path(card.path, name, "config.json").read_text("utf-8")) for name in names))
    try:
        return of_shapes(parts, *(read_shapes(Path(card.path, name)) for name in parts.modules))
    except ModelError:  # no headers: random weights, or files of another format
        return None


def of_shapes(parts: Parts, transformer: Shapes, vae: Shapes, text: Shapes) -> Sizes:
    """A model with one text encoder, from the shapes of its parameters."""
    text = {name: shape for name, shape in text.items() if not set(name.split(".")) & set(parts.text_unused)}
    if parts.text_layers:
        text = {name: shape for name, shape in text.items() if _layer_of(name) < parts.text_layers}
    if "shared.weight" in text:  # T5, which may have its table of tokens under two names
        text = {name: shape for name, shape in text.items() if "embed_tokens" not in name}
    layers = [prod(shape) for name, shape in text.items() if len(shape) == 2 and "embed_tokens" not in name]
    inner = [shape[0] for name, shape in text.items() if name.endswith(("mlp.gate_proj.weight", ".wi_0.weight"))]
    return Sizes(
        _transformer(transformer, parts),
        _text(text)
        if "shared.weight" in text
        else Part(_count(text), sum(layers), sum(layers), largest_layer=max(layers, default=0)),
        Part(0),
        Part(_count(vae)),
        width=transformer[f"{parts.embeds}.weight"][0],
        text_width=max(inner, default=0),
    )


def _layer_of(name: str) -> int:
    """The number of the layer that a parameter of a text encoder is in; -1 if it is in none."""
    found = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
    return int(found[1]) if found else -1


def of_flux(transformer: dict[str, Any], clip: dict[str, Any], t5: dict[str, Any], vae: dict[str, Any]) -> Sizes:
    """A FLUX.1 model, from the configs of its parts."""
    shapes = flux.Model(transformer, clip, t5).shapes
    return Sizes(
        _transformer(shapes["transformer"]),
        _text(shapes["text_encoder_2"]),
        Part(_count(shapes["text_encoder"])),
        Part(_vae(vae)),
        width=shapes["transformer"]["x_embedder.weight"][0],
        text_width=shapes["text_encoder_2"]["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"][0],
    )


def _transformer(shapes: Shapes, parts: Parts = FLUX1) -> Part:
    blocks: Counter[str] = Counter()
    linear: Counter[str] = Counter()
    largest = 0
    for name, shape in shapes.items():
        first, _, rest = name.partition(".")
        if first in parts.blocks:
            blocks[f"{first}.{rest.partition('.')[0]}"] += prod(shape)
        if first in (*parts.quantized, *parts.embedders) and len(shape) == 2 and shape[1] % GROUP == 0:
            linear[first] += prod(shape)
            largest = max(largest, prod(shape))
    quantized = linear.total()
    in_order = sorted(
        blocks, key=lambda name: (parts.blocks.index(name.partition(".")[0]), int(name.partition(".")[2]))
    )
    return Part(
        _count(shapes),
        quantized,
        quantized,
        sum(linear[name] for name in parts.embedders),
        blocks.total(),
        max(blocks.values(), default=0),
        tuple(blocks[name] for name in in_order),
        largest,
    )


def _text(shapes: Shapes) -> Part:
    linear = {name: prod(shape) for name, shape in shapes.items() if name.split(".")[-2] in _T5_LINEAR}
    kept = sum(count for name, count in linear.items() if name.endswith(KEPT_BY_BITSANDBYTES))
    largest = max((count for name, count in linear.items() if not name.endswith(KEPT_BY_BITSANDBYTES)), default=0)
    return Part(_count(shapes), sum(linear.values()), sum(linear.values()) - kept, largest_layer=largest)


def _count(shapes: Shapes) -> int:
    return sum(map(prod, shapes.values()))


def _vae(config: dict[str, Any]) -> int:
    """Parameters of diffusers' AutoencoderKL."""
    config = VAE_DEFAULTS | dict.fromkeys(_ALWAYS_THERE, True) | config
    widths, layers, latent = config["block_out_channels"], config["layers_per_block"], config["latent_channels"]
    top = widths[-1]
    middle = 2 * _resnet(top, top) + (2 * top + 4 * _conv(top, top, 1) if config["mid_block_add_attention"] else 0)
    encoder = _conv(config["in_channels"], widths[0], 3) + middle + 2 * top + _conv(top, 2 * latent, 3)
    decoder = _conv(latent, top, 3) + middle + 2 * widths[0] + _conv(widths[0], config["out_channels"], 3)
    for number, width in enumerate(widths):
        last = number == len(widths) - 1
        before = widths[max(0, number - 1)]
        after = widths[number + 1] if not last else top
        resample = 0 if last else _conv(width, width, 3)
        encoder += _resnet(before, width) + (layers - 1) * _resnet(width, width) + resample
        decoder += _resnet(after, width) + layers * _resnet(width, width)
        decoder += _conv(width, width, 3) if number else 0
    quantizers = _conv(2 * latent, 2 * latent, 1) * config["use_quant_conv"]
    return encoder + decoder + quantizers + _conv(latent, latent, 1) * config["use_post_quant_conv"]


def _conv(inputs: int, outputs: int, side: int) -> int:
    return side * side * inputs * outputs + outputs


def _resnet(inputs: int, outputs: int) -> int:
    shortcut = _conv(inputs, outputs, 1) if inputs != outputs else 0
    return 2 * inputs + _conv(inputs, outputs, 3) + 2 * outputs + _conv(outputs, outputs, 3) + shortcut
