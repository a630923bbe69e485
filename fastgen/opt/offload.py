"""Where the weights are while they are not needed.

What: `none` puts all of them onto the device. `text`: the text encoders are on it only while new prompts are encoded.
`model`: encoders, transformer and VAE take turns. `group`: the transformer's layers are loaded one after the other,
each while the previous one computes. How much: not measured. Of FLUX.1-dev in bfloat16 the text encoders are 9.1 of
about 33 GiB.
Quality: none is lost.
When not: on a CPU, and on any GPU that has room for the model: every move takes time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Offload, Optimizations
from fastgen.opt.base import Modules

TEXT = ("text_encoder", "text_encoder_2")
PARTS = (*TEXT, "transformer", "vae")


def refuse(gpu: Gpu | None, choice: Offload, others: Optimizations) -> str | None:
    return "there is nothing to offload on a CPU; leave it out" if gpu is None else None


def apply(modules: Modules, choice: Offload) -> dict:
    """Moves what should be on the device; the engine uses `onload` for the rest."""
    away = {"none": (), "text": TEXT, "model": PARTS, "group": ("transformer",)}[choice.kind]
    for name in PARTS:
        if name not in away:
            getattr(modules, name).to(modules.device)
    if choice.kind == "group":
        from diffusers.hooks import apply_group_offloading

        # By leaf, because the engine calls the blocks itself, so hooks on the whole transformer would never run.
        apply_group_offloading(
            modules.transformer, onload_device=modules.device, offload_type="leaf_level", use_stream=True
        )
        away = ()
    modules.away = away
    return {"away": list(away)}


@contextmanager
def onload(modules: Modules, *names: str) -> Iterator[None]:
    """Inside the block these parts are on the device, wherever they are kept."""
    visiting = [getattr(modules, name) for name in names if name in modules.away]
    for part in visiting:
        part.to(modules.device)
    try:
        yield
    finally:
        for part in visiting:
            part.to("cpu")
