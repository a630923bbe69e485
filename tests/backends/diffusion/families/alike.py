"""Compares the engine with diffusers' own pipelines: one image at a time there, and here alone and among others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastgen.backends.diffusion.backend import DiffusionBackend
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.step_engine import denoise
from tests.backends.diffusion.conftest import picture

TOLERANCE = 1e-3
"""To diffusers, on the scale of 0 to 1."""
MIXED = 2 / 255
"""Among others, to the same image alone."""


@dataclass(frozen=True)
class Case:
    """An image: different in every way that samples of one batch may differ."""

    prompt: str
    steps: int
    guidance: float
    seed: int
    negative: str | None = None
    true_cfg: float | None = None
    size: tuple[int, int] = (96, 64)
    references: tuple[tuple[int, int], ...] = ()

    @property
    def pictures(self) -> list[Any]:
        return [picture(self.seed + number, *shape) for number, shape in enumerate(self.references)]

    @property
    def asked(self) -> dict[str, Any]:
        """The arguments for diffusers' pipelines that all of them have."""
        return {
            "prompt": self.prompt,
            "width": self.size[0],
            "height": self.size[1],
            "num_inference_steps": self.steps,
            "generator": torch.Generator("cpu").manual_seed(self.seed),
            "output_type": "pt",
        }


def sample(backend: DiffusionBackend, case: Case) -> Sample:
    """The case as the renderer would submit it."""
    family = backend.family

    def encoded(text: str) -> Any:
        if not backend.modules.parts.processor:
            return backend.prompts.encode([text])[0]
        seen = tuple(one.resize(family.condition_size(one.size), Image.Resampling.LANCZOS) for one in case.pictures)
        return backend.prompts.encode_seen([(text, seen)])[0]

    made = Sample(
        encoded(case.prompt),
        *case.size,
        case.steps,
        case.guidance,
        family.noise(case.seed, *case.size),
    )
    if found := family.contrast(case.guidance, case.true_cfg, case.negative):
        made.negative, made.cfg = encoded(found[0]), found[1]
    if case.references:
        latents = [family.encode_pictures([np.asarray(picture)])[0] for picture in case.pictures]
        made.reference, made.reference_sizes = torch.cat(latents), case.references
    return made


def draw(backend: DiffusionBackend, cases: Sequence[Case]) -> list[torch.Tensor]:
    """The images of all cases, together."""
    samples = [sample(backend, case) for case in cases]
    denoise(backend.family, samples, 2 * len(samples))
    return [backend.pixels([one])[0] for one in samples]


def check(backend: DiffusionBackend, cases: Sequence[Case], theirs: Callable[[Case], torch.Tensor]) -> None:
    """Every case equals diffusers' picture alone, and itself alone when all are drawn together."""
    together = draw(backend, cases)
    for case, among in zip(cases, together, strict=True):
        want, alone = theirs(case), draw(backend, [case])[0]
        assert want.std() > 0.02, "a flat picture proves nothing"
        assert (alone - want).abs().max() < TOLERANCE, case
        assert (among - alone).abs().max() < MIXED, case
    for one, other in pairwise(together):
        assert one.shape != other.shape or (one - other).abs().mean() > 0.003, "all of them are the same picture"
