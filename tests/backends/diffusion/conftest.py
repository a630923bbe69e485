from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from fastgen.backends.diffusion.backend import DiffusionBackend
from fastgen.config.optimizations import Optimizations
from fastgen.resolver import resolve


def open_backend(task: str, out, optimizations: Optimizations | None = None, **flags) -> DiffusionBackend:
    """`optimizations`: in place of those that the flags and the profile choose."""
    settings = resolve(task, out=out, model=flags.pop("model", "tiny"), **{"gpus": "cpu", **flags})
    settings = replace(settings, optimizations=optimizations or settings.optimizations)
    for name in ("images", ".partial", "logs"):
        os.makedirs(os.path.join(settings.run.out, name), exist_ok=True)
    backend = DiffusionBackend(settings, settings.placement.devices[0])
    backend.open()
    return backend


@pytest.fixture(scope="session")
def t2i(tmp_path_factory):
    backend = open_backend("t2i", tmp_path_factory.mktemp("t2i"))
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def edit(tmp_path_factory):
    backend = open_backend("edit", tmp_path_factory.mktemp("edit"))
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def flux_pipeline():
    """diffusers' own pipeline on the same folder: the reference."""
    import torch
    from diffusers import FluxPipeline

    from fastgen.config.model_cards import TINY

    pipeline = FluxPipeline.from_pretrained(TINY, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Coloured blocks, different for each seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)
