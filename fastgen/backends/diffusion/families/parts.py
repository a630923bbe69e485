"""A model folder in diffusers' format -> Modules, for families without weights of the user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fastgen.backends import diffusion
from fastgen.backends.diffusion.folder import Folder, let_libraries_speak
from fastgen.backends.diffusion.modules import Modules
from fastgen.config.families import Parts
from fastgen.config.settings import Settings
from fastgen.opt.quantized_cache import find


def load(
    settings: Settings,
    device: torch.device,
    parts: Parts,
    classes: Mapping[str, Any],
    shorten: Callable[[dict[str, Any]], None] = lambda modules: None,
    more: Callable[[Folder], dict[str, Any]] = lambda folder: {},
) -> Modules:
    """Load the model of the settings, to run on `device`. Parts whose quantized weights come from an earlier start are
    created without weights.

    Args:
        classes: name of a part -> its class in diffusers or transformers.
        shorten: takes layers away that are never used.
        more: further members of `Modules`.

    Raises:
        ModelError: a file is missing, damaged or does not fit; the message names the file.
    """
    let_libraries_speak()
    names = {"transformer": "transformer", "text": parts.large_text}
    cache = find(settings.optimizations, _sources(settings), settings.model.name, device)
    folder = Folder(settings, device, [names[part] for part, cached in cache.items() if cached.is_there])
    modules: dict[str, Any] = {name: folder.part(name, cls) for name, cls in classes.items()}
    shorten(modules)
    for module in modules.values():
        module.eval().requires_grad_(False)
    return Modules(
        **modules,
        **more(folder),
        parts=parts,
        scheduler=folder.scheduler(),
        device=device,
        dtype=folder.dtype,
        quantized_cache=cache,
        engines=len(settings.placement.devices),
    )


def _sources(settings: Settings) -> dict[str, dict]:
    """For each part whose quantized weights may be cached, all that decides the weights that are quantized."""
    if settings.model.synthetic:
        return {}
    code = [Path(__file__), Path(diffusion.__path__[0], "folder.py")]
    decides = {
        "model": settings.model.fingerprint,
        "dtype": settings.engine.dtype,
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in code],
    }
    return {"transformer": decides, "text": decides}
