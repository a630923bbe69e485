"""Is it right on this hardware? Our loop against diffusers' pipelines, every attention kernel, every quantization."""

from __future__ import annotations

import math
from typing import Any

from bench.gpu import models
from bench.gpu.state import State
from fastgen.config.optimizations import Attention, Optimizations, Quantize
from fastgen.config.payback import NEED_IT

FLOAT32_DIFFERENCE = 2e-3
"""The largest difference of a pixel (0..1) in float32, where products may be rounded as TensorFloat-32."""
HALF_PSNR_DB = 25.0
"""Against diffusers in the same half type: both round at different places, and random weights amplify it."""
PROMPT = "a lighthouse at dusk"
SEED = 7


def environment(state: State, device: str) -> None:
    state.cell("environment", "environment", lambda: _environment(device))


def _environment(device: str) -> dict[str, Any]:
    import importlib.metadata as metadata
    import platform
    import subprocess

    import torch

    names = ("torch", "diffusers", "transformers", "accelerate", "torchao", "bitsandbytes", "triton", "kernels",
             "flash-attn", "flash_attn_3", "sageattention", "xformers")  # fmt: skip
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    facts: dict[str, Any] = {"python": platform.python_version(), "versions": versions, "system": platform.platform()}
    if device != "cpu":
        found = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": found.name,
            "memory_gib": round(found.total_memory / 2**30, 2),
            "compute_capability": f"{found.major}.{found.minor}",
            "cuda": torch.version.cuda,
            "nvidia_smi": subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout[-3000:],
            "checked": _product(torch),
        }
    return facts


def _product(torch: Any) -> float:
    """A matrix product on the card, whose every number is known."""
    ones = torch.ones(1024, 1024, device="cuda", dtype=torch.bfloat16)
    value = float((ones @ ones).float().mean())
    if value != 1024.0:
        raise ValueError(f"the card multiplies wrongly: {value} instead of 1024")
    return value


def parity(state: State, device: str) -> None:
    """One engine for each model and type; the pipeline has the same modules."""
    half = "bf16"
    for task, name in (("t2i", "tiny"), ("t2i", "middle"), ("edit", "middle-kontext")):
        for dtype in ("fp32", half):
            state.cell("parity", f"{name} {dtype}", lambda t=task, n=name, d=dtype: _parity(state, device, t, n, d))


def _parity(state: State, device: str, task: str, name: str, dtype: str) -> dict[str, Any]:
    size = "128x128" if device == "cpu" else "256x256" if name == "tiny" else "512x512"
    path = models.folder(state.folder, name, device)
    settings = models.resolve(state.folder, task, path, device, dtype=dtype, steps=4, size=size)
    with models.engine(settings) as (backend, _):
        ours = picture(backend, task, size)
        theirs = _theirs(backend.modules, settings, task, size)
    return compare(ours, theirs) | {
        "size": size,
        "right": bool(difference(ours, theirs) <= FLOAT32_DIFFERENCE)
        if dtype == "fp32"
        else psnr(ours, theirs) >= HALF_PSNR_DB,
    }


def picture(backend: Any, task: str, size: str, steps: int = 4) -> Any:
    """One image (3, H, W), float32, on the CPU, made by our loop. Raises ValueError if it is not finite."""
    from fastgen.backends.diffusion.families.flux1.latents import encode_pictures, make_noise
    from fastgen.backends.diffusion.family import Sample

    width, height = map(int, size.split("x"))
    prompt = backend.prompts.encode([PROMPT])[0]
    sample = Sample(prompt, width, height, steps, 3.5, make_noise(SEED, width, height))
    if task == "edit":
        sample.reference = encode_pictures(backend.modules, [_input(width, height)])[0]
        sample.reference_sizes = ((width, height),)
    (made,) = backend.pixels([sample])
    if made is None:
        raise ValueError("NaN or infinity in the latents or pixels")
    return made.float().cpu()


def _input(width: int, height: int) -> Any:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.radial_gradient("L").convert("RGB").resize((width, height)))


def _theirs(modules: Any, settings: Any, task: str, size: str) -> Any:
    from PIL import Image

    from fastgen.backends.diffusion.families.flux1.latents import make_noise
    from fastgen.bench.baselines import _pipeline

    width, height = map(int, size.split("x"))
    pipeline = _pipeline(modules, task)
    pipeline.set_progress_bar_config(disable=True)
    more: dict[str, Any] = {}
    if task == "edit":
        image = Image.fromarray(_input(width, height))
        more = {"image": image, "max_area": width * height, "_auto_resize": False}
    # The pipeline would draw its noise in the model's type; before PyTorch 2.12 that gives other numbers than float32.
    noise = make_noise(SEED, width, height).to(modules.device, modules.dtype)[None]
    made = pipeline(
        prompt=PROMPT, width=width, height=height, num_inference_steps=4, guidance_scale=3.5, output_type="pt",
        latents=noise, max_sequence_length=settings.engine.max_sequence_length, **more,
    ).images[0]  # fmt: skip
    return made.float().cpu()


def attention(state: State, device: str) -> None:
    """Every kernel by name: refused with a reason, or compared with PyTorch's own."""
    from fastgen.opt import attention as kernels

    path = models.folder(state.folder, "middle", device)
    size = "128x128" if device == "cpu" else "512x512"
    todo = [name for name in kernels.NAMES if not _is_kept(state, "attention", name)]
    if not todo:
        return
    settings = models.resolve(state.folder, "t2i", path, device, dtype="bf16", steps=4, size=size)
    gpu = settings.placement.devices[0].gpu
    with models.engine(settings) as (backend, _):
        backend.modules.transformer.reset_attention_backend()
        plain = picture(backend, "t2i", size)

        def measure(name: str) -> dict[str, Any]:
            choice = Attention(name)
            if reason := kernels.refuse(gpu, choice, Optimizations(attention=choice)):
                return {"refused": reason}
            try:
                kernels.apply(backend.modules, choice)
                return compare(picture(backend, "t2i", size), plain)
            finally:
                backend.modules.transformer.reset_attention_backend()

        for name in todo:
            state.cell("attention", name, lambda name=name: measure(name))


def quantize(state: State, device: str) -> None:
    """Every kind, transformer and T5, compared with bfloat16 on the same random weights."""
    from fastgen import opt

    path = models.folder(state.folder, "middle", device)
    size = "128x128" if device == "cpu" else "512x512"
    how = {"dtype": "bf16", "steps": 4, "size": size}
    todo = [word for kind in Quantize.kinds for word in (kind, f"text:{kind}")]
    todo = [word for word in todo if not _is_kept(state, "quantize", word)]
    if not todo:
        return
    with models.engine(models.resolve(state.folder, "t2i", path, device, **how)) as (backend, _):
        plain = picture(backend, "t2i", size)

    def measure(word: str) -> dict[str, Any]:
        compiled = {"compile": True} if device != "cpu" and word in NEED_IT else {}
        try:
            settings = models.resolve(state.folder, "t2i", path, device, quantize=word, **how, **compiled)
        except Exception as error:
            return {"refused": " ".join(str(error).split())[:300]}
        assert not opt.refuse(settings.optimizations, settings.placement.devices[0].gpu)
        with models.engine(settings) as (backend, facts):
            return compare(picture(backend, "t2i", size), plain) | {"opt": facts["opt"].get("quantize")}

    for word in todo:
        state.cell("quantize", word, lambda word=word: measure(word))


def _is_kept(state: State, part: str, name: str) -> bool:
    found = state.read(part, name)
    return found is not None and found["status"] == "done"


def compare(ours: Any, theirs: Any) -> dict[str, Any]:
    found = psnr(ours, theirs)
    return {
        "difference": round(difference(ours, theirs), 6),
        "psnr_db": round(found, 1) if math.isfinite(found) else "inf",
        "finite": bool(ours.isfinite().all() and theirs.isfinite().all()),
        "spread": round(float(theirs.std()), 4),
    }


def difference(ours: Any, theirs: Any) -> float:
    """The largest of a pixel."""
    return float((ours - theirs).abs().max())


def psnr(ours: Any, theirs: Any) -> float:
    error = float(((ours - theirs) ** 2).mean())
    return math.inf if error == 0 else -10 * math.log10(error)
