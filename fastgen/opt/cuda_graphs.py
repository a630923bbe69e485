"""A step of the loop as one CUDA graph: the device gets all its kernels at once.

What: a group of samples takes the same step again and again, with nothing but the noise level changing. The step is
recorded once per shape (backends/diffusion/graphs.py) and then repeated; the host no longer starts each of its about
4,000 kernels.
How much: not measured, so no profile chooses it. It can help where kernels are shorter than it takes to start them:
small images, one at a time, without compiled blocks.
Quality: none is lost; the same kernels run.
When not: with a step cache, whose decisions the host must know; with --offload, which moves weights away from where the
graph reads them; on a CPU.
"""

from __future__ import annotations

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import CudaGraphs, Optimizations
from fastgen.opt.base import Modules


def refuse(gpu: Gpu | None, choice: CudaGraphs, others: Optimizations) -> str | None:
    if gpu is None:
        return "needs a CUDA GPU"
    if others.stepcache.kind != "none":
        return "a step cache decides anew at every step; use --cache none"
    if others.offload.kind != "none":
        return "weights that come and go are not where the graph reads them; use --offload none"
    return None


def apply(modules: Modules, choice: CudaGraphs) -> dict:
    """The step loop reads it."""
    modules.cuda_graphs = True
    return {"on": True}
