"""A bench from its settings to its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

import fastgen
from fastgen import hardware
from fastgen.bench import chart, commands, peak, report, synthetic
from fastgen.bench.arms import arms
from fastgen.bench.measure import Measurement
from fastgen.bench.tune import search
from fastgen.bench.work import Work
from fastgen.errors import SettingsError
from fastgen.settings import OUTPUT_KEYS, Settings, number

ROUNDS = 3
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def settings_for(
    task: str,
    out: Path | None,
    *,
    synthetic_model: str = "",
    tune: bool = False,
    model: str = "auto",
    gpus: str = "",
    **flags,
) -> Settings:
    """The task as `fastgen.resolve` has it, on one device, nothing optimized.

    Raises:
        SettingsError: also where a flag means nothing for the task, or a synthetic model does not fit into the memory.
    """
    if task not in OUTPUT_KEYS:
        raise SettingsError(f"bench {task}: one of {', '.join(OUTPUT_KEYS)}")
    foreign = ("size", "steps", "batch_size", "dtype", "profile") if task == "caption" else ("vllm_command",)
    for name in foreign:
        if flags.pop(name, None) not in (None, "auto"):
            raise SettingsError(f"--{name.replace('_', '-')}: means nothing for bench {task}")
    if task == "caption" and tune:
        raise SettingsError("--tune: searches for t2i and edit only; what vLLM is told is in kernels_cfg/vlm*.toml")
    out = (out or Path("fastgen-runs") / f"bench-{task}").absolute()
    if synthetic_model:
        if synthetic_model not in synthetic.NAMES:
            raise SettingsError(f"--synthetic {synthetic_model}: one of {', '.join(synthetic.NAMES)}")
        if model != "auto":
            raise SettingsError("--synthetic and --model: give one of them")
        if task == "caption" or (task == "edit") != (synthetic_model == "flux-kontext"):
            raise SettingsError(f"--synthetic {synthetic_model}: flux-dev is for t2i, flux-kontext for edit")
        model = str(synthetic.make(synthetic_model, out / f"synthetic-{synthetic_model}"))
    settings = fastgen.resolve(task, out=out, model=model, gpus=gpus, **flags)
    if len(settings.devices) > 1:
        if gpus:
            raise SettingsError(f"--gpus {gpus}: a bench is of one device; name one")
        settings = replace(settings, devices=settings.devices[:1])
    if synthetic_model:
        device = settings.devices[0]
        there = device.gpu.memory_gib if device.gpu else hardware.free_main_gib()
        needed = synthetic.PARAMETERS * BYTES[settings.dtype] / 2**30
        if there < needed:
            raise SettingsError(
                f"--synthetic {synthetic_model}: its parts take {needed:.0f} GiB in {settings.dtype}, and {device.name} has "
                f"{there:.0f}; use a larger GPU, or leave --synthetic out: the embedded model is measured then"
            )
    return settings


def run(
    settings: Settings, command: list[str], say: Callable[[str], None], *, only: tuple[str, ...] = (), rounds: int = ROUNDS,
    rows: int = 0, compare: str = "", tune: bool = False,
) -> dict:  # fmt: skip
    """Measure, and write bench.json, bench.md and bench.png into the folder of the settings.

    Args:
        command: as the user typed it, for the files.
        say: called with a line a step.
        only: arms by name; () for all.
        rows: a round; 0 for as many as the opponent does in some seconds.
        compare: a shell command to be timed beside `fastgen`, with {rows} and {out} in it.
        tune: also search batch sizes and options, and write profile.toml.

    Returns:
        What is in bench.json.

    Raises:
        FastgenError: nothing could be measured.
    """
    number("--rounds", rounds, 1, 1000)
    number("--rows", rows, 0, 1_000_000)
    out = Path(settings.out)
    contestants = arms(settings, only)
    for old in ("arms", "tune", "commands"):  # of an earlier bench; what else is in the folder is not ours
        shutil.rmtree(out / old, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    most = peak.of_hardware(settings)
    work = Work(settings, out / "arms" / "inputs")
    measurement = Measurement(contestants, work, out / "arms", rounds=rounds, rows=rows, say=say)
    measurement.run()
    facts = report.about(settings, command, measurement, most)
    found: dict = {"about": facts, "arms": [one.as_dict(work, most[0]) for one in measurement.figures]}
    for arm in found["arms"]:
        if "ratio" in arm:
            arm["again"] = report.rerun(facts, arm["name"], os.path.relpath(out))
    if compare:
        found["commands"] = commands.time_both(compare, settings, work, out / "commands", measurement.rows, rounds, say)
    if tune:
        found["tune"] = search(settings, out, rounds, measurement.rows, facts, say)
    report.write_json(out / "bench.json", found)
    (out / "bench.md").write_text(report.markdown(found), "utf-8")
    chart.draw(found, out / "bench.png")
    say(f"wrote bench.md, bench.json and bench.png in {out}")
    return found
