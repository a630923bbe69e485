"""Where the weights are while they are not needed.

What: `none` puts all of them onto the device. `text`: the text encoders are on it only while new prompts are encoded.
`model`: text encoders, transformer and VAE take turns. `group`: of the transformer's blocks two are on the device, one
that computes and the next one, which is copied at the same time; the text encoders come and go as with `text`.
Weights never change, so what leaves the device is dropped there and never copied back. A part that comes stays until
another one needs its place, and the engine does everything that needs it first (backends/diffusion/threads).
How much: not measured. Of FLUX.1-dev in bfloat16 the text encoders are 9.1 of about 33 GiB.
Quality: none is lost.
When not: on a CPU, and on any GPU that has room for the model: every move takes time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastgen.config.families import Parts
from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Offload, Optimizations
from fastgen.opt.base import Modules, blocks_of


def refuse(gpu: Gpu | None, choice: Offload, others: Optimizations) -> str | None:
    return "there is nothing to offload on a CPU; leave it out" if gpu is None else None


def away(choice: Offload, parts: Parts) -> tuple[str, ...]:
    """The parts that are on the device only while they are needed."""
    text = parts.text
    return {"none": (), "text": text, "model": (*text, "transformer", "vae"), "group": text}[choice.kind]


def apply(modules: Modules, choice: Offload) -> dict:
    """Moves what should be on the device; the engine uses `onload` for the rest."""
    text = modules.parts.text
    parts = (*text, "transformer", "vae")
    leave = away(choice, modules.parts)
    modules.parked = {}
    if modules.stages:  # `shard` has placed everything
        return {"away": []}
    if not leave:
        # The first process of a replica encodes for all.
        for name in parts if modules.ranks.number == 0 else parts[len(text) :]:
            getattr(modules, name).to(modules.device)
        return {"away": []}
    from fastgen.opt.parked import BlockStream, Parked, may_pin

    pinned = []
    for name in parts:
        part = getattr(modules, name)
        pin = may_pin(part, modules.engines)
        if name in leave:
            modules.parked[name] = Parked(part, modules.device, pin)
        elif name == "transformer" and choice.kind == "group":
            modules.block_stream = BlockStream([block for _, block in blocks_of(modules)], modules.device, pin)
            modules.block_stream.move_the_rest(part)
        else:
            part.to(modules.device)
            continue
        pinned += [name] if pin else []
    modules.away = leave
    return {"away": list(leave), "pinned": pinned}


@contextmanager
def onload(modules: Modules, *names: str) -> Iterator[None]:
    """Inside the block these parts are on the device, wherever they are kept. They stay until others need the place."""
    if modules.parked and names:
        if modules.block_stream is not None and set(names) & set(modules.parts.text):
            modules.block_stream.release()  # the text encoders need the room on the smallest GPUs
        for name, part in modules.parked.items():
            if name not in names:
                part.leave()
        for name in names:
            if name in modules.parked:
                modules.parked[name].come()
    yield
