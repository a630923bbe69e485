"""What a step has to compute, from the model's config alone: the arithmetic that nothing can leave out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
