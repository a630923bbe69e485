"""The first steps of an image are taken at a smaller size.

What: at high noise only the coarse structure of an image is decided. So its first steps are taken on a smaller image,
made of the lowest frequencies of the sample's own noise. Then the rest of that noise is added at the level now reached,
and the image goes on at its full size (backends/diffusion/progressive.py; after "Spectral Progressive Diffusion", arXiv
2605.18736).
How much: docs/optimizations.md.
Quality: lossy. It grows with the share of the steps.
When not: with very few steps; at sizes whose half the model does not know; edits, whose references keep their size.
"""

from __future__ import annotations

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Optimizations, Progressive
from fastgen.opt.base import Modules


def refuse(gpu: Gpu | None, choice: Progressive, others: Optimizations) -> str | None:
    if others.shard.kind == "context":
        return "does not go with --parallel context, which divides the tokens of one size; leave one of them out"
    return None


def apply(modules: Modules, choice: Progressive) -> dict:
    """The step loop reads it."""
    modules.progressive = choice
    return {"scale": choice.scale, "share": choice.share}
