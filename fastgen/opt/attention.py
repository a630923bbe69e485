"""Which kernel computes attention, through diffusers' dispatcher, for the transformer only.

What: `auto` and `native` are PyTorch's own choice; the others name a kernel. diffusers accepts some that fail at the
first call, and remembers the last one for every later pipeline of the process. So each is tried on a few tokens when it
is chosen, in the model's own type and head size, and the dispatcher's state is restored.
How much: published figures for an H200 say that FlashAttention 3 takes a seventh less time than PyTorch's own at
1024x1024, both compiled (4.32 and 3.73 s for 28 steps of FLUX.1-dev: sglang, pull request 19673). Not measured here.
Quality: rounding; the sage kernels quantize queries and keys, which is more (not measured).
When not: on a CPU, where `native` is the fastest and only `math` and `flex` run besides.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Attention, Optimizations
from fastgen.errors import SettingsError
from fastgen.opt import xformers_build
from fastgen.opt.base import Modules

NAMES = {
    "native": "native",
    "math": "_native_math",
    "efficient": "_native_efficient",
    "cudnn": "_native_cudnn",
    "flex": "flex",
    "flash": "flash",
    "flash3": "_flash_3",
    "flash4": "flash_4_hub",
    "sage": "sage",
    "xformers": "xformers",
}
"""Our names -> diffusers' names."""
CPU = ("native", "math", "flex")
PACKAGES = {
    "flash": "flash_attn",
    "flash3": "flash_attn_3",
    "flash4": "kernels",
    "sage": "sageattention",
    "xformers": "xformers",
}
COMPUTE_CAPABILITY = {"cudnn": 8.0, "flash": 8.0, "flash3": 9.0, "flash4": 9.0, "sage": 8.0}
"""The lowest compute capability."""


def refuse(gpu: Gpu | None, choice: Attention, others: Optimizations) -> str | None:
    name = choice.kernel
    if gpu is None:
        return None if name in CPU else f"needs a CUDA GPU; on a CPU there are {', '.join(CPU)}"
    least = COMPUTE_CAPABILITY.get(name, 0.0)
    if least and float(gpu.compute_capability or 0) < least:
        return f"needs compute capability {least}; {gpu.name} has {gpu.compute_capability}"
    if name == "flash3" and not gpu.compute_capability.startswith("9."):
        return f"FlashAttention 3 is for Hopper (9.0); {gpu.name} has {gpu.compute_capability}"
    if name == "xformers" and (reason := xformers_build.refuse()):
        return reason
    if (package := PACKAGES.get(name)) and find_spec(package) is None:
        return f"the package {package} is not installed"
    return None


def apply(modules: Modules, choice: Attention) -> dict:
    transformer = modules.transformer
    try:
        _set(transformer, NAMES[choice.kernel])
        _try(modules)
    except Exception as error:  # each kernel fails in its own way
        transformer.reset_attention_backend()
        text = " ".join(str(error).split())[:300]
        raise SettingsError(
            f"--attention {choice.kernel}: does not work here: {type(error).__name__}: {text}"
        ) from error
    return {"kernel": choice.kernel}


def _set(transformer: Any, name: str) -> None:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

    before = Registry._active_backend
    try:
        transformer.set_attention_backend(name)
    finally:
        Registry.set_active_backend(before)  # the state belongs to the whole process, and the last one set stays


def _try(modules: Modules) -> None:
    """Run a few tokens through one attention layer."""
    import torch

    attention = modules.transformer.single_transformer_blocks[0].attn
    tokens = torch.zeros(1, 128, attention.heads, attention.head_dim, dtype=modules.dtype, device=modules.device)
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    with torch.inference_mode():
        found = dispatch_attention_fn(tokens, tokens, tokens, backend=attention.processor._attention_backend)
    if found.shape != tokens.shape or not torch.isfinite(found).all():
        raise RuntimeError("its result is not a number or has another shape")
