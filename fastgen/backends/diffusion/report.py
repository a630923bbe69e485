"""What a batch cost and how it went, for its results and the summary of the run. Does not compute."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.step_engine import StepEngine
from fastgen.config.settings import Settings
from fastgen.opt.base import blocks_of
from fastgen.opt.compile import graphs

if TYPE_CHECKING:
    from fastgen.backends.diffusion.render import ImageJob

BROKEN = "weights are broken (--lora, --transformer or the files of --model)"
WHY_NOT_FINITE = {
    "float16": "float16 overflows with this model: use --dtype bfloat16 or float32",
    "bfloat16": f"{BROKEN}, or bfloat16 is too coarse: try --dtype float32",
    "float32": BROKEN,
}


class WorkDone:
    """Counts from batch to batch. Made when the engine is warm: graphs compiled after that are recompiles."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._lock = threading.Lock()
        self._graphs = graphs() if settings.optimizations.compile.on else 0

    def since_last(self, modules: Modules, steps: StepEngine, jobs: list[ImageJob]) -> dict[str, int]:
        """Counters for the summary of the run: of this batch, and what all did since the batch before.

        Args:
            jobs: the images of this batch.
        """
        work: dict[str, int] = asdict(steps.take_counts())
        if modules.device.type == "cuda":
            work["gpu_peak_mib"] = max(map(torch.cuda.max_memory_reserved, modules.devices)) >> 20
        if modules.step_cache is not None or modules.progressive is not None:
            work |= _blocks(jobs, len(blocks_of(modules)))
        if self.settings.optimizations.compile.on:
            with self._lock:
                now = graphs()
                work["recompiles"], self._graphs = now - self._graphs, now
        return work


def _blocks(jobs: list[ImageJob], blocks: int) -> dict[str, int]:
    """How many blocks were evaluated, and how many there are in all steps. One on a smaller image counts by its share
    of the pixels."""
    evaluated, all_steps = 0.0, 0
    for job in jobs:
        small = job.small
        for pattern in job.patterns or ["1" * job.request.image_params.steps]:
            first = small.steps if small is not None else 0
            evaluated += _evaluated(pattern[first:], blocks)
            evaluated += _evaluated(pattern[:first], blocks) * (small.share if small is not None else 0)
            all_steps += len(pattern)
    return {"blocks": round(evaluated), "blocks_without_cache": all_steps * blocks}


def _evaluated(pattern: str, blocks: int) -> int:
    computed = pattern.count("1")
    return computed * blocks + len(pattern) - computed


def small_steps(jobs: list[ImageJob]) -> dict[str, int]:
    """The first steps of a row's images, if they were taken at a smaller size: how many, and which size."""
    small = next((job.small for job in jobs if job.small is not None), None)
    return {"steps": small.steps, "width": small.width, "height": small.height} if small is not None else {}


def not_finite(settings: Settings) -> str:
    """Why a row has no image though the model computed one."""
    likely = WHY_NOT_FINITE[settings.engine.dtype]
    return f"the model made numbers that are not finite, so there is no image; likely {likely}"


def decisions(jobs: list[ImageJob]) -> dict[str, int | str]:
    """What the step cache did for a row: all steps, those computed in full, and which ones, one pattern per image and
    turn."""
    patterns = [pattern for job in jobs for pattern in job.patterns]
    if not patterns:
        return {}
    computed = sum(pattern.count("1") for pattern in patterns)
    return {"steps": sum(map(len, patterns)), "computed": computed, "pattern": " ".join(patterns)}
