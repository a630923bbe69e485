"""A profile from measurements: batch sizes by image size, and what each --quality chooses, by speed and by cost.

The reference is fastgen without optimizations. `exact` takes what changes rounding at most, `high` what loses at most
one point of prompt following, `fast` at most three. The last two need images that can be judged, so they are searched
only with the embedded model; otherwise they come from the profile in use.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from fastgen.backends.registry import streams
from fastgen.bench.arms import Arm, arms, parse
from fastgen.bench.measure import Figures, Measurement
from fastgen.bench.work import Work
from fastgen.config import optimizations, profile
from fastgen.config.settings import Settings

BATCHES = (1, 2, 4, 8, 16)
MOST_PIXELS = 4 * 1024 * 1024
"""Pixels of a batch: beyond that, a single image keeps any hardware busy."""
SIZES = {"cpu": ((128, 128), (192, 192), (256, 256)), "cuda": ((256, 256), (512, 512), (768, 768), (1024, 1024))}
EXACT = (
    "fuse_qkv",
    "norm_rope",
    "cuda_graphs",
    "compile",
    "attention cudnn",
    "attention flash",
    "attention flash3",
    "attention flash3_hub",
    "attention flash4",
)
CACHES = (
    "cache taylorseer:0.1",
    "cache taylorseer:0.2",
    "cache first-block:0.08",
    "cache first-block:0.12",
    "cache first-block:0.2",
    "cache first-block:0.4",
)
QUANTIZED = (
    "quantize nvfp4",
    "quantize mxfp8",
    "quantize fp8",
    "quantize int8",
    "quantize 8bit",
    "quantize 4bit",
)
GAIN = 1.03
"""A smaller gain is not worth a change, and cannot be told from noise."""
JUDGED = 200
"""Minimum number of images per arm: one point of prompt following is two of them."""
POINTS = {"high": 1.0, "fast": 3.0}
"""Percentage points of prompt following that may be lost."""


def search(settings: Settings, out: Path, rounds: int, rows: int, facts: dict, say: Callable[[str], None]) -> dict:
    """Search, and write profile.toml. Returns the findings, for bench.json."""
    batches, tried = {}, {}
    for size in SIZES[settings.placement.devices[0].kind]:
        if size[0] * size[1] <= settings.model.defaults.max_pixels:
            name = "x".join(map(str, size))
            batches[name], tried[name] = _batch(settings, size, out / "tune" / name, rounds, say)
    table = tuple((profile.pixels(name), batch) for name, batch in batches.items())
    placement = replace(settings.placement, profile=replace(settings.placement.profile, batch=table))
    best = replace(settings, placement=placement, run=replace(settings.run, batch_size=0))
    speeds: dict[str, float] = {}
    """Images per second, by arm; "" is the plain model."""

    def measure(names: list[str], part: str) -> list[Figures]:
        """Relative to plain fastgen, which comes first."""
        contestants = arms(best, ("plain", *names))[1:]
        if len(contestants) == 1:
            return []
        work = Work(best, out / "tune" / part / "inputs")
        enough = max(rows, -(-JUDGED // rounds)) if work.is_judged else rows
        measurement = Measurement(contestants, work, out / "tune" / part, rounds=rounds, rows=enough, say=say)
        measurement.run()
        found = {one.arm.name: one.rates for one in measurement.figures[1:] if one.rates and not one.failed}
        for name, rates in {"": measurement.figures[0].rates, **found}.items():
            speeds[name] = statistics.median(rates) if rates else 0.0
        return measurement.figures

    chosen = _choose(measure, Work(best, out).is_judged)
    rate = _rate(speeds, chosen, best)
    (out / "profile.toml").write_text(_profile(settings, chosen, batches, rate, facts), "utf-8")
    say(f"wrote {out / 'profile.toml'}: use it with --profile, or put it into {profile.FOLDER}")
    return {"batch": batches, "ratio_to_one_at_a_time": tried, "chosen": chosen, "profile": str(out / "profile.toml")}


def _choose(measure: Callable[[list[str], str], list[Figures]], is_judged: bool) -> dict[str, str]:
    """The arm for each quality; only `exact` where pictures cannot be judged."""
    figures = measure(list(EXACT), "exact")
    exact = _joined(figures)
    if "+" in exact:  # they have not been tried together yet
        single = max((_ratio(one), one.arm.name) for one in figures[1:])[1]
        exact = max((_ratio(one), one.arm.name) for one in measure([exact, single], "joined")[1:])[1]
    if not is_judged:
        return {"exact": exact}
    base = [exact] if exact else []
    cached = [" + ".join([*base, cache]) for cache in CACHES]
    high = _best(measure([*base, *cached], "high"), POINTS["high"]) or exact
    again = [f"{name} + {kind}" if name else kind for name in {high, exact} for kind in QUANTIZED]
    fast = _best(measure([*cached, *again], "fast"), POINTS["fast"]) or high
    return {"exact": exact, "high": high, "fast": fast}


def _rate(speeds: dict[str, float], chosen: dict[str, str], settings: Settings) -> profile.Rate:
    """What a plan estimates by. A quality that was not measured has none."""
    devices, usual = settings.placement.devices, settings.model.defaults
    width, height = settings.image.size or (usual.width, usual.height)
    each = width * height * settings.image.steps / 1e6 / (len(devices) if devices[0].gpu else 1)
    return profile.Rate(**{quality: round(speeds.get(name, 0.0) * each, 3) for quality, name in chosen.items()})


def _profile(
    settings: Settings, chosen: dict[str, str], batches: dict[str, int], rate: profile.Rate, facts: dict
) -> str:
    """What was found as TOML; qualities that were not measured are those of the profile in use."""
    device, model, used = settings.placement.devices[0], settings.model, settings.placement.profile
    sets = replace(used.opt, **{quality: optimizations.Options(**parse(name)[1]) for quality, name in chosen.items()})
    match = profile.Match(
        family=model.family,
        model=model.name if not model.synthetic else "*",
        device=device.kind,
        compute_capability=device.gpu.compute_capability if device.gpu else "*",
        least_memory_gib=float(int(0.95 * device.gpu.memory_gib)) if device.gpu else 0.0,
    )
    note = f"weights: {facts['weights']}; {facts['dtype']}, {facts['steps']} steps"
    if "high" not in chosen:
        note += f"; high and fast as in {used.name}, not measured"
    measured = profile.Measured("measured", time.strftime("%Y-%m-%d"), facts["hardware"], facts["command"], note)
    return profile.dump(match, batches, sets, measured, rate)


def _batch(
    settings: Settings, size: tuple[int, int], folder: Path, rounds: int, say: Callable[[str], None]
) -> tuple[int, dict]:
    """The smallest batch that is as fast as any other, and the measured ratios to batch 1."""
    own = replace(settings, image=replace(settings.image, size=size))
    sizes = [n for n in BATCHES if n == 1 or n * size[0] * size[1] <= MOST_PIXELS]
    contestants = [Arm(f"batch {n}", replace(own, run=replace(own.run, batch_size=n))) for n in sizes]
    rows = 2 * sizes[-1] * streams(settings.placement.devices[0], settings.optimizations)  # the same number for all
    measurement = Measurement(contestants, Work(own, folder / "inputs"), folder, rounds=rounds, rows=rows, say=say)
    measurement.run()
    ratios = {1: 1.0}
    for n, figures in zip(sizes[1:], measurement.figures[1:], strict=True):
        if not figures.failed:
            ratios[n] = round(_ratio(figures), 3)
    most = max(ratios.values())
    return next(n for n, ratio in ratios.items() if ratio * GAIN >= most), {str(n): r for n, r in ratios.items()}


def _joined(figures: list[Figures]) -> str:
    """All arms that are faster than the first, combined; of several attentions only the fastest."""
    faster = [(_ratio(one), one.arm.name) for one in figures[1:] if _ratio(one) > GAIN]
    attentions = sorted((one for one in faster if one[1].startswith("attention")), reverse=True)
    others = [name for _, name in faster if not name.startswith("attention")]
    return " + ".join([*others, *(name for _, name in attentions[:1])])


def _best(figures: list[Figures], points: float) -> str:
    """The fastest arm that loses at most `points`; "" if none is faster than the first."""
    if not figures:
        return ""
    reference = figures[0].judge
    bar = 100 * reference.right / reference.judged - points
    fit = [
        (_ratio(one), one.arm.name)
        for one in figures[1:]
        if _ratio(one) > GAIN and 100 * one.judge.right / one.judge.judged >= bar
    ]
    return max(fit, default=(0.0, ""))[1]


def _ratio(figures: Figures) -> float:
    return 0.0 if figures.failed or not figures.ratios else statistics.median(figures.ratios)
