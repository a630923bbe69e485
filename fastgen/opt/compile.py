"""The transformer's blocks, compiled by torch.compile, each kind once.

What: regional compilation, since a FLUX has many blocks of two kinds; shapes are dynamic, so that sizes and batches
share a graph; only images of a single token (16x16) need a few of their own. Compiled code is stored in a cache folder
and reused by the next start. Graphs made after the warm-up are counted (`recompiles` in run.json).
How much: published, 4.32 instead of 5.58 s on an H200 (sglang, pull request 19673). On a CPU: docs/optimizations.md.
Quality: rounding.
When not: on a CPU, where half a minute of compiling rarely pays off; with few rows. So a profile can say "auto":
only in runs that are long enough (config/payback.py).
"""

from __future__ import annotations

import os
from pathlib import Path

from fastgen.config.cache import cache_folder
from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Compile, Optimizations
from fastgen.opt import compiler
from fastgen.opt.base import Modules

GRAPHS = 64
"""Graphs that a block may have before PyTorch gives up: two batch kinds (1 and more) with two memory layouts, and
spare."""


def refuse(gpu: Gpu | None, choice: Compile, others: Optimizations) -> str | None:
    if others.offload.kind == "group":
        return "blocks that come and go break compiled graphs; use --no-compile or another --offload"
    return compiler.missing(gpu)


def apply(modules: Modules, choice: Compile) -> dict:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # Else torch sets the variable itself, to a temporary folder that a restart may empty.
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR", default_cache_dir()) == default_cache_dir():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private_folder())
    enter_thread(choice)
    if modules.device.type == "cpu" or modules.stages:
        _allow_threads()
    modules.transformer.compile_repeated_blocks(fullgraph=True, dynamic=True, backend=choice.backend)
    return {"backend": choice.backend, "folder": os.environ["TORCHINDUCTOR_CACHE_DIR"]}


def _allow_threads() -> None:
    """Keep threads apart that call compiled blocks at the same time, where PyTorch has state of the whole process. On a
    GPU there is only one such thread, but for a model with stages and a step cache."""
    from torch._C._dynamo import eval_frame

    # The graph of a call is looked for in a list, and moved to the front: another thread that looks misses one of them,
    # and makes it again.
    if keep_order := getattr(eval_frame, "_set_lru_cache", None):
        keep_order(False)
    # `fullgraph` counts the graphs that a call used, to raise an error if there are none: the start of another thread's
    # call sets the count to 0. One that is set outside of calls is not looked at.
    if count := getattr(eval_frame, "set_fullgraph_compiled_frame_count", None):
        count(0)


def private_folder() -> Path:
    """Where compiled code is kept: a folder that only this user can write, since code is run from it."""
    folder = cache_folder() / "inductor"
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():  # the cache is shared
        folder = folder.with_name(f"inductor-{os.getuid()}")
        folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    return folder


def enter_thread(choice: Compile) -> None:
    """The limit belongs to the thread, and exceeding it is an error."""
    import torch
    from torch.fx.experimental import _config as shapes

    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    # Otherwise lengths that happen to be equal when a graph is made must stay equal: if prompts had as many tokens as
    # an image of the warm-up, the next size would need its own graphs.
    shapes.use_duck_shape = False


def graphs() -> int:
    """Graphs that this process has compiled so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def fall_back(modules: Modules, choice: Compile, facts: dict) -> bool:
    """Go on without compiled blocks."""
    for module in modules.transformer.modules():
        module._compiled_call_impl = None
    facts |= {"backend": "none", "note": "not compiled, because that failed (the worker's log says how)"}
    return True
