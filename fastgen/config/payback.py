"""Whether a run is long enough for compiling to pay. Pure: does not know rows, files or torch.

Compiling takes a while at the start and then saves a little at every step. Both figures are data in the profile.
"""

from __future__ import annotations

from msgspec.structs import replace

from fastgen.config.model_cards import ModelCard
from fastgen.config.optimizations import Compile, Optimizations
from fastgen.config.profile import Payback
from fastgen.config.settings import Image

NEED_IT = ("fp8", "int8", "mxfp8", "nvfp4")
"""Kinds of quantized weights that are many times slower without compiled blocks."""


def settle(chosen: Optimizations, figures: Payback, work: float, refusal: str = "") -> tuple[Optimizations, str]:
    """Decide about a compile that is chosen only if it pays. Returns the choices, and a note for the user or "".

    Args:
        figures: from the profile.
        work: steps x megapixels ahead, for each device.
        refusal: why it cannot be compiled here, or "".
    """
    if not chosen.compile.if_it_pays:
        return chosen, ""
    saved_s = work * figures.saved_s
    pays = figures.saved_s > 0 and saved_s > figures.cost_s
    if chosen.quantize.transformer in NEED_IT or (pays and not refusal):
        return replace(chosen, compile=replace(chosen.compile, if_it_pays=False)), ""
    note = ""
    if pays:
        note = f"not compiled, which would save about {saved_s:.0f} s: {refusal}"
    elif figures.saved_s > 0:
        note = (
            f"not compiled: that takes about {figures.cost_s:.0f} s and would save about {saved_s:.0f} s in this run "
            "(--compile compiles anyway)"
        )
    return replace(chosen, compile=Compile()), note


def work(rows: int, image: Image, card: ModelCard, devices: int) -> float:
    """Steps x megapixels that a run of that many rows has ahead, for each device."""
    width, height = image.size or (card.defaults.width, card.defaults.height)
    return rows * image.n * image.steps * width * height / 1e6 / devices
