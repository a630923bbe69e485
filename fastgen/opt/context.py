"""One image over the devices of a replica: each has some of its tokens (context parallelism, Ulysses).

What: every device has the whole transformer and VAE, in a process of its own. Tokens of text, image and reference are
divided among them. Layers work on a token at a time; only attention needs all of them, and exchanges tokens for heads
(opt/ulysses). The text encoders are on the first device alone. Batches of images are decoded by all (backends/
diffusion/ranks).
How much: not measured here; published for FLUX.1-dev on two H200: 2.42 s instead of 3.73 s for an image, which is 77 %
of what two replicas make (sglang, pull request 19673).
Quality: rounding.
When not: for throughput. Replicas of one device each make more images per hour, because they exchange nothing.
"""

from __future__ import annotations

from typing import Any

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Optimizations
from fastgen.errors import SettingsError
from fastgen.opt.base import Modules, blocks_of


def refuse(gpu: Gpu | None, others: Optimizations) -> str | None:
    if others.offload.kind in ("model", "group"):
        return (
            "each device needs the whole transformer at every step; use --offload text or none, or --parallel shard, "
            "which divides the weights"
        )
    if others.cuda_graphs.on:
        return "a recorded step belongs to one GPU; leave --cuda-graphs out"
    if others.norm_rope.on:
        return "attention over several devices has its own norm and rotation; leave norm_rope out of the profile"
    return None


def apply(modules: Modules) -> dict:
    """Raises SettingsError if the heads cannot be divided."""
    from fastgen.opt.ulysses import UlyssesProcessor, attend_over

    heads, count = modules.transformer.config.num_attention_heads, modules.ranks.count
    if why := refuse_heads(heads, count):
        raise SettingsError(why)
    attend_over(modules.ranks, ())  # an engine that this process had before may have had others
    block: Any
    for _, block in blocks_of(modules):
        before = block.attn.processor
        block.attn.processor = UlyssesProcessor()
        block.attn.processor._attention_backend = before._attention_backend
    return {"ranks": count}


def refuse_heads(heads: int, count: int) -> str:
    """Why the attention heads of a model cannot be divided among so many devices; "" if they can."""
    if heads % count == 0:
        return ""
    fits = max(size for size in range(1, count) if heads % size == 0)
    fix = f"use --gpus-per-replica {fits}" if fits > 1 else "use --parallel shard"
    return f"--parallel context: the model's {heads} attention heads cannot be divided among {count} devices; {fix}"
