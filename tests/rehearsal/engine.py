"""The engine of fastgen on a fake card: opened as a worker opens it, given rows as a run gives them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import bitsandbytes  # noqa: F401  A CPU build of torch lets it be imported only while there is no GPU
import torch
import torchao.quantization  # noqa: F401
from diffusers import (  # noqa: F401
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    ZImageTransformer2DModel,
)
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import nn
from transformers import (  # noqa: F401
    CLIPTextModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Model,
    T5EncoderModel,
)

from fastgen import opt
from fastgen.backends.diffusion import backend as engine
from fastgen.backends.diffusion import synthetic
from fastgen.config.settings import Settings
from fastgen.input.readers.rows import read
from fastgen.input.requests import Intake
from fastgen.opt.base import blocks_of
from fastgen.output import artifacts
from fastgen.types import Batch, Bucket, Done, Request, Result
from tests.rehearsal import replay, stand_ins
from tests.rehearsal.cards import Card
from tests.rehearsal.fake_cuda import Rehearsal, rehearsed
from tests.rehearsal.meter import Work


@dataclass(frozen=True)
class Opened:
    backend: engine.DiffusionBackend
    rehearsal: Rehearsal
    facts: dict[str, Any]
    weights_bytes: int
    """On the card when the engine is ready, without the CUDA context."""
    open_peak_bytes: int
    """The most while it was loaded and warmed up, with the context."""
    open_peak_at: str
    """The line that took it."""
    seconds: float


@dataclass(frozen=True)
class Ran:
    results: list[Result]
    batch: Work
    """All of the batch."""
    step: Work
    """From one step to the next, in the middle of the batch."""
    steps: int
    peak_bytes: int
    peak_at: str

    @property
    def outside(self) -> Work:
        """The batch without its steps."""
        rest = self.batch.copy()
        for name, value in vars(self.step).items():
            if name != "syncs":
                setattr(rest, name, getattr(rest, name) - self.steps * value)
        rest.syncs = self.batch.syncs - Counter({what: self.steps * n for what, n in self.step.syncs.items()})
        return rest

    @property
    def errors(self) -> list[str]:
        return [getattr(r, "message", "") for r in self.results if not isinstance(r, Done)]


@contextmanager
def prepared(card: Card, answer: float = 0.0, count: int = 1) -> Iterator[Rehearsal]:
    """So many fake cards, for models without data. What cannot be rehearsed is replaced (`stand_ins`)."""
    with ExitStack() as stack:
        rehearsal = stack.enter_context(rehearsed(card, answer, count))
        stack.enter_context(stand_ins.used(rehearsal.fake))
        # diffusers remembers the kernel that was chosen last, for every model of the process.
        stack.enter_context(patch.object(_AttentionBackendRegistry, "_active_backend", AttentionBackendName.NATIVE))
        stack.enter_context(patch.object(synthetic, "part", lambda *a: _part(rehearsal, *a)))
        yield rehearsal


@contextmanager
def opened(
    settings: Settings, card: Card, answer: float = 0.0, count: int = 1, is_quick: bool = False
) -> Iterator[Opened]:
    """Open the engine of these settings on so many of this card.

    Args:
        is_quick: blocks that are alike are computed once (`replay`); for one card.
    """
    with ExitStack() as stack:
        rehearsal = stack.enter_context(prepared(card, answer, count))
        meter, apply_all = rehearsal.meter, opt.apply_all
        if settings.optimizations.compile.on:
            stack.enter_context(stand_ins.compiled(meter))
        if is_quick:
            stack.enter_context(replay.weights_stay(meter))
        weights = 0

        def apply(*args: Any) -> Any:
            nonlocal weights
            facts = apply_all(*args)
            weights = meter.live
            return facts

        stack.enter_context(patch.object(opt, "apply_all", apply))
        empty, started = meter.live, time.monotonic()
        backend = engine.DiffusionBackend(settings, settings.placement.devices[0])
        facts = backend.open()
        if is_quick:
            replay.alike([block for _, block in blocks_of(backend.modules)], meter)
            replay.alike(_layers(backend.modules.text_encoder), meter)
        seconds = time.monotonic() - started
        out = Path(settings.run.out)
        out.mkdir(parents=True, exist_ok=True)
        artifacts.clear_partial(out)
        artifacts.prepare(out)
        try:
            yield Opened(backend, rehearsal, facts, weights - empty, meter.peak, meter.peak_at, seconds)
        finally:
            backend.close()


def run(opened: Opened, requests: list[Request]) -> Ran:
    """One batch."""
    meter = opened.rehearsal.meter
    marks: list[Work] = []
    meter.forget_peaks()
    before = meter.work.copy()
    hook = _last_layer(opened).register_forward_hook(lambda *_: marks.append(meter.work.copy()))
    try:
        results = opened.backend.run(Batch(Bucket.of(requests[0]), tuple(requests)))
    finally:
        hook.remove()
    middle = len(marks) // 2
    step = marks[middle] - marks[middle - 1] if len(marks) > 1 else Work()
    return Ran(results, meter.work - before, step, len(marks), meter.peak, meter.peak_at)


def _layers(encoder: nn.Module) -> list[nn.Module]:
    """Those of a language model, and of what looks at images for it."""
    lists = [one for name, one in encoder.named_modules() if name.rpartition(".")[2] in ("layers", "blocks")]
    return [layer for one in lists if isinstance(one, nn.ModuleList) for layer in one]


def _last_layer(opened: Opened) -> nn.Module:
    """Each step of any loop ends with it."""
    modules = opened.backend.modules
    last = getattr(modules.transformer, modules.parts.after[-1])
    return next(iter(last.values())) if isinstance(last, nn.ModuleDict) else last


def requests(settings: Settings, rows: Path) -> list[Request]:
    """The rows of a file as requests; each must be one that can be run."""
    intake = Intake(settings)
    made = [intake.read(row, intake.identify(row)) for row in read(rows)]
    refused = [one for one in made if not isinstance(one, Request)]
    assert not refused, refused
    return made


def _part(rehearsal: Rehearsal, folder: Path, cls: Any, dtype: torch.dtype, *_: Any) -> nn.Module:
    """A part of the model in main memory, without data and at its full size."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with rehearsal.fake, torch.device("cpu"):
            if hasattr(cls, "load_config"):  # diffusers
                return cls.from_config(cls.load_config(folder)).to(dtype)
            return cls(cls.config_class.from_pretrained(folder)).to(dtype)
    finally:
        torch.set_default_dtype(before)
