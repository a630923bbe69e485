"""A model folder in diffusers' format -> Modules, with LoRAs and a transformer of the user's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fastgen.backends import diffusion
from fastgen.backends.diffusion import single_file
from fastgen.backends.diffusion.folder import Folder, let_libraries_speak
from fastgen.backends.diffusion.lora import merge
from fastgen.backends.diffusion.modules import Modules
from fastgen.config.families import Parts
from fastgen.config.settings import Settings
from fastgen.config.stamps import stamp
from fastgen.input import weights
from fastgen.opt.offload import away
from fastgen.opt.quantized_cache import find


def load(
    settings: Settings,
    device: torch.device,
    parts: Parts,
    classes: Mapping[str, Any],
    shorten: Callable[[dict[str, Any]], None] = lambda modules: None,
    more: Callable[[Folder], dict[str, Any]] = lambda folder: {},
) -> Modules:
    """Load the model of the settings, with its LoRAs merged, to run on `device`. Parts whose quantized weights come
    from an earlier start are created without weights.

    Args:
        classes: name of a part -> its class in diffusers or transformers.
        shorten: sets the modules right before LoRAs are merged: takes layers away that are never used.
        more: further members of `Modules` besides the tokenizers.

    Raises:
        ModelError: a file is missing, damaged or does not fit; the message names the file.
    """
    let_libraries_speak()
    names = {"transformer": "transformer", "text": parts.large_text}
    engine = settings.engine
    plans = weights.plan(settings.model.path, engine.transformer, engine.loras)
    leave = away(settings.optimizations.offload, parts)
    cache = find(
        settings.optimizations,
        _sources(settings, plans, names),
        settings.model.name,
        device,
        [part for part, name in names.items() if name in leave],
    )
    folder = Folder(settings, device, [names[part] for part, cached in cache.items() if cached.is_there])
    own = plans.transformer if "transformer" not in folder.hollow else None
    modules: dict[str, Any] = {
        name: folder.part(name, cls) if name != "transformer" or own is None else folder.empty(name, cls)
        for name, cls in classes.items()
    }
    if own is not None:
        single_file.fill(modules["transformer"], engine.transformer, own, folder.dtype)
    shorten(modules)
    for module in modules.values():
        module.eval().requires_grad_(False)
    whole = {name: module for name, module in modules.items() if name not in folder.hollow}
    for (path, scale), plan in zip(engine.loras, plans.loras, strict=True):
        merge(path, plan, scale, whole)
    return Modules(
        **modules,
        **{name: folder.tokenizer(name) for name in parts.tokenizers},
        **more(folder),
        parts=parts,
        scheduler=folder.scheduler(),
        device=device,
        dtype=folder.dtype,
        quantized_cache=cache,
        away=leave,
        engines=len(settings.placement.devices),
    )


def _sources(settings: Settings, plans: weights.Plans, names: dict[str, str]) -> dict[str, dict]:
    """For each part whose quantized weights may be cached, all that decides the weights that are quantized. `names`:
    name in `Quantize` -> the module."""
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
        for part, name in names.items()
    }
