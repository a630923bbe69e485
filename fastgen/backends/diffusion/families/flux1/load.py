"""A FLUX.1 folder in diffusers format -> Modules, with LoRAs and a transformer of the user's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from fastgen.backends import diffusion
from fastgen.backends.diffusion import single_file
from fastgen.backends.diffusion.folder import Folder, let_libraries_speak
from fastgen.backends.diffusion.lora import merge
from fastgen.backends.diffusion.modules import Modules
from fastgen.config.families import FLUX1
from fastgen.config.settings import Settings
from fastgen.config.stamps import stamp
from fastgen.input import weights
from fastgen.opt.quantized_cache import find

PARTS = {"transformer": "transformer", "text": FLUX1.large_text}
"""Name in `Quantize` -> the module that can be quantized."""


def load(settings: Settings, device: torch.device) -> Modules:
    """Load the model of the settings, with its LoRAs merged, to run on `device`. Parts whose quantized weights come
    from an earlier start are created without weights.

    Raises:
        ModelError: a file is missing, damaged or does not fit; the message names the file.
    """
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel

    let_libraries_speak()
    engine = settings.engine
    plans = weights.plan(settings.model.path, engine.transformer, engine.loras)
    cache = find(settings.optimizations, _sources(settings, plans), settings.model.name, device)
    folder = Folder(settings, device, [PARTS[part] for part, cached in cache.items() if cached.is_there])
    if plans.transformer is not None and PARTS["transformer"] not in folder.hollow:
        transformer = folder.empty("transformer", FluxTransformer2DModel)
        single_file.fill(transformer, engine.transformer, plans.transformer, folder.dtype)
    else:
        transformer = folder.part("transformer", FluxTransformer2DModel)
    modules: dict[str, Any] = {
        "transformer": transformer,
        "vae": folder.part("vae", AutoencoderKL),
        "text_encoder": folder.part("text_encoder", CLIPTextModel),
        "text_encoder_2": folder.part("text_encoder_2", T5EncoderModel),
    }
    for module in modules.values():
        module.eval().requires_grad_(False)
    whole = {name: module for name, module in modules.items() if name not in folder.hollow}
    for (path, scale), plan in zip(engine.loras, plans.loras, strict=True):
        merge(path, plan, scale, whole)
    return Modules(
        **modules,
        parts=FLUX1,
        tokenizer=folder.tokenizer("tokenizer"),
        tokenizer_2=folder.tokenizer("tokenizer_2"),
        scheduler=folder.scheduler(),
        device=device,
        dtype=folder.dtype,
        quantized_cache=cache,
        engines=len(settings.placement.devices),
    )


def _sources(settings: Settings, plans: weights.Plans) -> dict[str, dict]:
    """For each part whose quantized weights may be cached, all that decides the weights that are quantized."""
    if settings.model.synthetic:
        return {}
    engine, room = settings.engine, Path(diffusion.__path__[0])
    code = [Path(__file__), *(room / f"{name}.py" for name in ("folder", "lora", "single_file"))]
    code += sorted(Path(weights.__file__).parent.glob("*.py"))
    decides = {
        "model": settings.model.fingerprint,
        "dtype": engine.dtype,
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in code],
    }
    files = {"transformer": stamp(Path(engine.transformer)) if engine.transformer else "", "text": ""}
    loras = list(zip(engine.loras, plans.loras, strict=True))
    return {
        part: decides
        | {
            "file": files[part],
            "loras": [(stamp(Path(path)), scale) for (path, scale), plan in loras if name in plan.parts],
        }
        for part, name in PARTS.items()
    }
