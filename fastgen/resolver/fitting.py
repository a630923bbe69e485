"""Flags, model and machine -> how the model fits into the GPUs' memory. Starts nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from fastgen import opt
from fastgen.config import payback
from fastgen.config.checks import DTYPE_BYTES
from fastgen.config.families import PARTS
from fastgen.config.fit import card as cards
from fastgen.config.fit import published
from fastgen.config.fit.memory import Work
from fastgen.config.fit.planner import Model, Plan, Planner
from fastgen.config.hardware import Device
from fastgen.config.model_cards import ModelCard
from fastgen.config.optimizations import BECAUSE, Offload, Optimizations, Quantize
from fastgen.config.profile import Profile
from fastgen.config.settings import Engine, Image, Placement, RunOptions, Settings
from fastgen.errors import SettingsError
from fastgen.output.run_dir import JOURNAL, RUN
from fastgen.resolver import sizes
from fastgen.resolver.flags import Flags
from fastgen.types import Task

KEPT = "this run folder, which keeps its precision"


def fit(
    flags: Flags,
    card: ModelCard,
    engine: Engine,
    image: Image,
    run: RunOptions,
    profile: Profile,
    devices: tuple[Device, ...],
    chosen: Optimizations,
) -> tuple[Optimizations, Plan | None]:
    """The choices that fit into memory. No plan on a CPU, and where the memory or the model's sizes are unknown.

    Raises:
        SettingsError: the choices cannot be combined or do not fit; the message says what is needed and what would fit.
    """
    fixed = {name: f"--{name}" for name, value in flags.optimizations.items() if value not in ("", None)}
    planner = _planner(flags.task, card, engine, image, run, profile, devices, fixed)
    if planner is None:
        return _usable(chosen, devices), None
    _usable(replace(chosen, offload=Offload()), devices)  # by what has nothing to do with memory
    if "quantize" not in fixed and (kept := _kept(Path(run.out), run.fresh, chosen)) is not None:
        if kept != chosen.quantize:
            chosen = replace(chosen, quantize=kept, why=chosen.why | dict.fromkeys(kept.words(), KEPT))
        fixed["quantize"] = f"the precision of the images in {run.out}"
    return _with_proposal(planner, chosen, devices)


def _with_proposal(
    planner: Planner, asked: Optimizations, devices: tuple[Device, ...]
) -> tuple[Optimizations, Plan | None]:
    """The plan, and what several GPUs together would do better. Raises SettingsError as `Planner.plan` does."""

    def proposal() -> str:
        return planner.proposal(asked, len(devices)) if asked.shard.is_plain else ""

    try:
        chosen, plan = planner.plan(asked)
    except SettingsError as error:
        more = proposal()
        raise SettingsError(f"{error}, or {more}" if more else str(error)) from None
    lowered = (chosen.quantize, chosen.offload) != (asked.quantize, asked.offload)
    return chosen, replace(plan, proposal=proposal()) if lowered else plan


def refit(settings: Settings, chosen: Optimizations, fixed: Mapping[str, str]) -> Settings:
    """Settings with other choices, fitted into memory.

    Args:
        fixed: see `Planner`.

    Raises:
        SettingsError: as `fit` does.
    """
    devices, profile = settings.placement.devices, settings.placement.profile
    planner = _planner(
        settings.task, settings.model, settings.engine, settings.image, settings.run, profile, devices, fixed
    )
    if planner is None:
        return replace(settings, optimizations=_usable(chosen, devices), fit=None)
    chosen, plan = planner.plan(chosen)
    return replace(settings, optimizations=chosen, fit=plan)


def settle_compile(
    chosen: Optimizations, rows: int, image: Image, card: ModelCard, placement: Placement
) -> tuple[Optimizations, str]:
    """Decide whether a run of that many rows compiles, if that was left open: memory comes first. Returns the choices,
    and a note for the user or "". Raises SettingsError if something else cannot do without."""
    devices = placement.devices
    gpus = [gpu for device in devices for gpu in device.gpus or (None,)]
    refusal = next((why for gpu in gpus if (why := opt.refuse_one("compile", chosen, gpu))), "")
    work = payback.work(rows, image, card, len(devices))
    chosen, note = payback.settle(chosen, placement.profile.compile, work, refusal)
    return _usable(chosen, devices), note


def _planner(
    task: Task,
    card: ModelCard,
    engine: Engine,
    image: Image,
    run: RunOptions,
    profile: Profile,
    devices: tuple[Device, ...],
    fixed: Mapping[str, str],
) -> Planner | None:
    space = cards.of(devices)
    found = (sizes.read(card) or published.SIZES.get(card.name)) if space else None
    if space is None or found is None:
        return None
    work = _work(task, card, engine, image, run, profile)
    model = Model(card.name, found, work, engine.dtype, DTYPE_BYTES[engine.dtype])
    return Planner(model, space, lambda choices: _reason(choices, devices), fixed)


def _usable(choices: Optimizations, devices: tuple[Device, ...]) -> Optimizations:
    """The choices, if they can be used on all devices, leaving memory aside. Raises SettingsError."""
    if reason := _reason(choices, devices):
        raise SettingsError(reason)
    return choices


def _reason(choices: Optimizations, devices: tuple[Device, ...]) -> str:
    """Why choices cannot be used on one of the devices; "" if they can."""
    gpus = [gpu for device in devices for gpu in device.gpus or (None,)]
    return next((reason for gpu in gpus if (reason := opt.refuse(choices, gpu))), "")


def _work(task: Task, card: ModelCard, engine: Engine, image: Image, run: RunOptions, profile: Profile) -> Work:
    """For rows that do not set a size. Larger ones may run out of memory, and the engine then takes less at a time."""
    pixels = image.size[0] * image.size[1] if image.size else card.defaults.pixels
    reference = card.defaults.pixels if task == "edit" else 0
    parts = PARTS.get(card.family)
    passes = 2 if parts and parts.contrasts and card.defaults.true_cfg and image.guidance > 1 else 1
    return Work(
        batch=passes * (run.batch_size or profile.batch_for(pixels)),
        image_tokens=pixels // card.grid**2,
        reference_tokens=reference // card.grid**2,
        text_tokens=engine.max_sequence_length,
        pixels=max(pixels, reference),
        kept_tokens=reference // card.grid**2 if parts and parts.keeps_references else 0,
    )


def _kept(out: Path, fresh: bool, chosen: Optimizations) -> Quantize | None:
    """The precision of the images that the run folder has, if a planner chose it or would have to change it now. So a
    run continues on another card, or says why it cannot."""
    run = {} if fresh or not _size(out / JOURNAL) else _read(out / RUN)
    try:
        then, why = run["settings"], str(run["speed"]["quantize"]["why"])
        kept = Quantize.parse(f"{then['quantize']},text:{then['quantize_text']}")
    except (KeyError, TypeError, ValueError):  # of another version, or not of a local engine
        return None
    return kept if kept == chosen.quantize or why.startswith((BECAUSE, KEPT)) else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
