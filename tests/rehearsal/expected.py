"""What a step has to compute: the arithmetic that nothing can leave out. For FLUX.1 from the model's config alone, for
the other families from the shapes of their layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fastgen.config.families import Parts

FREQUENCIES = 256
"""Numbers that describe a noise level before it is embedded."""


def step_flops(config: Mapping[str, Any], samples: int, text: int, image: int, reference: int = 0) -> int:
    """Operations of FLUX.1's transformer in one step, multiplications and additions.

    Args:
        config: its config.json.
        samples: images in the batch.
        text, image, reference: tokens of each. The text is projected before the steps.
    """
    wide = config["num_attention_heads"] * config["attention_head_dim"]
    tokens, own = samples * (text + image + reference), samples * image
    attention = 4 * tokens * (text + image + reference) * wide
    double = 2 * samples * 12 * wide**2 + 2 * tokens * (4 + 8) * wide**2 + attention
    single = 2 * samples * 3 * wide**2 + 2 * tokens * (3 + 4 + 5) * wide**2 + attention
    summaries = 2 if config["guidance_embeds"] else 1
    embedded = 2 * samples * wide * (summaries * (FREQUENCIES + wide) + config["pooled_projection_dim"] + wide)
    ends = 2 * own * 2 * config["in_channels"] * wide + 2 * samples * 2 * wide**2
    return config["num_layers"] * double + config["num_single_layers"] * single + embedded + ends


ONCE = ("context_embedder", "txt_in", "cap_embedder", "context_refiner")
"""What a transformer computes of a prompt before the steps."""


def step_flops_by_layers(transformer: nn.Module, parts: Parts, samples: int, text: int, image: int, more: int) -> int:
    """Operations in one step of a family after FLUX.1, as `step_flops`.

    Args:
        samples: rows of a forward pass; an image with true guidance has two.
        text, image, more: tokens of a row; `more` are those of references.
    """
    blocks = [block for name in parts.blocks for block in getattr(transformer, name)]
    width = next(layer.in_features for name, layer in transformer.named_modules() if name.endswith(".to_q"))
    found = sum(block_flops(block, parts.per_sample, width, text, image + more) for block in blocks)
    refiner = getattr(transformer, "noise_refiner", ())
    found += sum(block_flops(block, parts.per_sample, width, 0, image) for block in refiner)
    for name, layer in transformer.named_modules():
        if _is_linear(layer) and not name.startswith((*parts.blocks, *ONCE, "noise_refiner")):
            once = name.startswith(("norm_out", *parts.embedders)) or "adaLN" in name
            found += 2 * (1 if once else image) * layer.in_features * layer.out_features
    return samples * found


def block_flops(block: nn.Module, per_sample: tuple[str, ...], width: int, text: int, image: int) -> int:
    """Operations of one block on one row: two for each weight and token that it sees, and attention, 4 L^2 d."""
    linear = [(name, layer) for name, layer in block.named_modules() if _is_linear(layer)]
    both = not any(_of_text(name) for name, _ in linear)
    found = 4 * (image + text) ** 2 * width
    for name, layer in linear:
        once = name.startswith(("norm", *per_sample))
        tokens = 1 if once else image + text if both else text if _of_text(name) else image
        found += 2 * tokens * layer.in_features * layer.out_features
    return found


def _is_linear(layer: nn.Module) -> bool:
    return hasattr(layer, "in_features")  # also if it is quantized


def _of_text(name: str) -> bool:
    return name.startswith(("ff_context", "txt_", "attn.add_", "attn.to_add_out"))
