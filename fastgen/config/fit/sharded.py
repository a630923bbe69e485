"""How a model fits into the GPUs of a replica, which share its blocks. Reckons with `memory`; reads no hardware."""

from __future__ import annotations

from collections.abc import Sequence

from fastgen.config.fit.memory import CONTEXT_GIB, ROUNDING, Need, Sizes, Work, spare_gib
from fastgen.config.fit.stages import Cut, cut
from fastgen.config.optimizations import Optimizations

PHASE = "its blocks are on several GPUs"
STEP_GIB = 0.05
"""How finely the memory is reckoned that each GPU would need."""


def divide(
    sizes: Sizes, work: Work, choices: Optimizations, dtype_bytes: int, rooms_gib: Sequence[float]
) -> tuple[Cut, Need, int] | None:
    """How the blocks are divided, what the fullest GPU needs, and its number; None if they do not fit.

    Args:
        rooms_gib: free memory of each GPU.
    """
    part, spare = sizes.transformer, spare_gib(sizes, work, choices, dtype_bytes)
    weights = part.gib(choices.quantize.transformer, dtype_bytes)
    per_value = (1 + ROUNDING) * weights / part.all
    blocks = [values * per_value for values in part.by_block]
    rest = (part.all - part.blocks) * per_value
    vae = sizes.vae.gib("none", dtype_bytes) * (1 + ROUNDING)
    text = (sizes.text.gib(choices.quantize.text, dtype_bytes) + sizes.clip.gib("none", dtype_bytes)) * (1 + ROUNDING)
    kept = [spare[0], *(spare[1] for _ in rooms_gib[1:])]
    rooms = [room - CONTEXT_GIB - keeps for room, keeps in zip(rooms_gib, kept, strict=True)]
    encoding = max(0.0, spare[2] - spare[1])
    found = cut(blocks, rooms, rest + vae, 0.0, text + encoding)
    if found is None:
        return None
    held = [sum(blocks[start:stop]) for start, stop in found.stages]
    held[0] += rest + vae
    held[found.text] += text
    kept[found.text] += encoding
    fullest = min(range(len(held)), key=lambda at: rooms_gib[at] - held[at] - kept[at])
    terms = {"weights": held[fullest], "activations": kept[fullest], "CUDA": CONTEXT_GIB, "margin": 0.0}
    return found, Need(PHASE, terms, 0.0), fullest


def least_gib(sizes: Sizes, work: Work, choices: Optimizations, dtype_bytes: int, gpus: int) -> float:
    """Free memory that each of so many equal GPUs would need, rounded up."""
    low, high = 0.0, 2048.0
    while high - low > STEP_GIB:
        middle = (low + high) / 2
        fits = divide(sizes, work, choices, dtype_bytes, [middle] * gpus) is not None
        low, high = (low, middle) if fits else (middle, high)
    return high
