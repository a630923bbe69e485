"""Which kernel computes attention, through diffusers' dispatcher, for the transformer only.

What: `auto` and `native` are PyTorch's own choice; `best` is the first of a list for this GPU that works here; the
others name a kernel. diffusers accepts some that fail at the first call, and remembers the last one for every later
pipeline of the process. So each is tried on a few tokens when it is chosen, in the model's own type and head size; its
result must be PyTorch's own but for rounding, and the dispatcher's state is restored.
How much: published figures for an H200 say that FlashAttention 3 takes a seventh less time than PyTorch's own at
1024x1024, both compiled (4.32 and 3.73 s for 28 steps of FLUX.1-dev: sglang, pull request 19673). Not measured here.
Quality: rounding; the sage kernels quantize queries and keys, which is more (not measured).
When not: on a CPU, where `native` is the fastest and only `math` and `flex` run besides.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Attention, Optimizations
from fastgen.errors import SettingsError
from fastgen.opt import xformers_build
from fastgen.opt.base import Modules, blocks_of

NAMES = {
    "native": "native",
    "math": "_native_math",
    "efficient": "_native_efficient",
    "cudnn": "_native_cudnn",
    "flex": "flex",
    "flash": "flash",
    "flash3": "_flash_3",
    "flash3_hub": "_flash_3_hub",
    "flash4": "flash_4_hub",
    "sage": "sage",
    "xformers": "xformers",
}
"""Our names -> diffusers' names."""
CPU = ("native", "math", "flex")
PACKAGES = {
    "flash": "flash_attn",
    "flash3": "flash_attn_3",
    "flash3_hub": "kernels",
    "flash4": "kernels",
    "sage": "sageattention",
    "xformers": "xformers",
}
QUANTIZING = ("sage",)
COMPUTE_CAPABILITY = {"cudnn": 8.0, "flash": 8.0, "flash3": 9.0, "flash3_hub": 9.0, "flash4": 9.0, "sage": 8.0}
"""The lowest compute capability."""


HUB = {"flash3_hub": ("kernels-community/flash-attn3", 1), "flash4": ("kernels-community/flash-attn4", 0)}
"""Kernels that the package `kernels` gets from the hub: repository and version, as diffusers asks for them."""
BEST = {
    "9.": ("flash3", "flash3_hub", "cudnn", "flash", "native"),
    "10.": ("cudnn", "native"),
    "12.": ("cudnn", "native"),
    "": ("native",),
}
"""Beginning of the compute capability -> what `best` tries, the fastest by published figures first. Before Hopper
PyTorch's own is FlashAttention 2 already."""
ROUNDING = 0.02
"""Largest difference from PyTorch's own kernel: four steps of bfloat16 near 1."""


def refuse(gpu: Gpu | None, choice: Attention, others: Optimizations) -> str | None:
    name = choice.kernel
    if gpu is None:
        return None if name in CPU else f"needs a CUDA GPU; on a CPU there are {', '.join(CPU)}"
    least = COMPUTE_CAPABILITY.get(name, 0.0)
    if least and float(gpu.compute_capability or 0) < least:
        return f"needs compute capability {least}; {gpu.name} has {gpu.compute_capability}"
    if name in ("flash3", "flash3_hub") and not gpu.compute_capability.startswith("9."):
        return f"FlashAttention 3 is for Hopper (9.0); {gpu.name} has {gpu.compute_capability}"
    if name == "xformers" and (reason := xformers_build.refuse()):
        return reason
    if (package := PACKAGES.get(name)) and find_spec(package) is None:
        return f"the package {package} is not installed"
    if name in HUB and not _is_cached(name):
        repository, version = HUB[name]
        return (
            f"its kernel is not in the cache, and engines do not download; get it once with network: python -c "
            f"\"from kernels import get_kernel; get_kernel('{repository}', version={version})\""
        )
    return None


def apply(modules: Modules, choice: Attention) -> dict:
    if choice.kernel == "best":
        return _apply_best(modules)
    try:
        _apply(modules, choice.kernel)
    except Exception as error:  # each kernel fails in its own way
        raise SettingsError(f"--attention {choice.kernel}: does not work here: {_brief(error)}") from error
    return {"kernel": choice.kernel}


def _apply_best(modules: Modules) -> dict:
    """The first kernel of the list for this GPU that works. One whose package or code is missing is passed over."""
    import torch

    capability = ".".join(map(str, torch.cuda.get_device_capability(modules.device)))
    names = next(names for beginning, names in BEST.items() if capability.startswith(beginning))
    passed: dict[str, str] = {}
    for name in names:
        if (package := PACKAGES.get(name)) and find_spec(package) is None:
            passed[name] = f"the package {package} is not installed"
        elif name in HUB and not _is_cached(name):
            passed[name] = f"{HUB[name][0]} is not in the cache"
        else:
            try:
                _apply(modules, name)
                break
            except Exception as error:  # PyTorch's own needs no trial: if it fails, so does everything
                if name == "native":
                    raise
                passed[name] = _brief(error)
    return {"kernel": name, "passed_over": passed, "note": f"attention by {name}"}


def fall_back(modules: Modules, choice: Attention, facts: dict) -> bool:
    """Use PyTorch's own kernel instead of the one that `best` found. Returns whether that changed anything."""
    if choice.kernel != "best" or facts["kernel"] == "native":
        return False
    facts["passed_over"][facts["kernel"]] = "failed in the warm-up"
    facts |= {"kernel": "native", "note": "attention by native"}
    _set(modules.transformer, NAMES["native"])
    return True


def _apply(modules: Modules, name: str) -> None:
    """Use this kernel, or leave everything as it was and raise what it raises."""
    try:
        _set(modules.transformer, NAMES[name])
        _try(modules, name)
    except BaseException:
        modules.transformer.reset_attention_backend()
        raise


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}"


def _is_cached(name: str) -> bool:
    """Whether the hub's cache has the kernel, in some version."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
    folders = [os.environ.get("KERNELS_CACHE"), os.environ.get("HF_HUB_CACHE"), home / "hub"]
    repository = HUB[name][0].replace("/", "--")
    kinds = ("models", "kernels")
    return any(
        Path(folder, f"{kind}--{repository}", "snapshots").expanduser().is_dir()
        for folder in folders
        if folder
        for kind in kinds
    )


def _set(transformer: Any, name: str) -> None:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

    before = Registry._active_backend
    try:
        transformer.set_attention_backend(name)
    finally:
        Registry.set_active_backend(before)  # the state belongs to the whole process, and the last one set stays


def _try(modules: Modules, name: str) -> None:
    """Run a few tokens through one attention layer, and through PyTorch's own kernel; where prompts of other lengths
    share a pass, with a mask too."""
    import torch
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    block: Any = blocks_of(modules)[-1][1]
    attention = block.attn if hasattr(block, "attn") else block.attention
    generator = torch.Generator().manual_seed(0)
    shape = (3, 1, 128, attention.heads, attention.inner_dim // attention.heads)
    qkv = torch.randn(shape, generator=generator).to(modules.device, modules.dtype).unbind()
    mask = (torch.arange(128, device=modules.device) < 100)[None, None, None]
    for one in (None, mask) if modules.parts.masks else (None,):
        with torch.inference_mode():
            found = dispatch_attention_fn(*qkv, attn_mask=one, backend=attention.processor._attention_backend)
            own = dispatch_attention_fn(*qkv, attn_mask=one, backend=NAMES["native"])
        if found.shape != own.shape or not torch.isfinite(found).all():
            raise RuntimeError("its result is not a number or has another shape")
        off = (found.float() - own.float()).abs().max().item()
        if off > ROUNDING and name not in QUANTIZING:
            raise RuntimeError(f"its result is up to {off:.3f} away from PyTorch's own")
