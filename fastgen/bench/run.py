"""A bench, from its settings to its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from msgspec.structs import replace

import fastgen
from fastgen.bench import chart, commands, noise, peak, pipeline, report, synthetic
from fastgen.bench.arms import arms
from fastgen.bench.measure import Measurement
from fastgen.bench.tune import search
from fastgen.bench.work import Work
from fastgen.config import hardware, nvidia, replicas
from fastgen.config.checks import number
from fastgen.config.model_cards import AUTO_ON_GPU
from fastgen.config.settings import OUTPUT_KEYS, Settings
from fastgen.errors import DiskError, RunFolderError, SettingsError

ROUNDS = 3
MARK = ".fastgen-bench"
FOLDERS, FILES = ("arms", "tune", "commands"), ("bench.json", "bench.md", "bench.png", "profile.toml")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def settings_for(
    task: str,
    out: Path | None,
    *,
    synthetic_model: str = "",
    tune: bool = False,
    model: str = "auto",
    gpus: str = "",
    gpus_per_replica: int | None = None,
    **flags: Any,
) -> Settings:
    """The settings from `fastgen.resolve`, on one device or replica, without optimizations.

    Raises:
        SettingsError: also if a flag does not apply to the task, or a synthetic model does not fit into the memory.
    """
    _refuse_foreign(task, synthetic_model, tune, model, flags)
    out = (out or Path("fastgen-runs") / f"bench-{task}").absolute()
    flat, size = replicas.parse(gpus, gpus_per_replica or 0)
    device = hardware.find_devices(flat)[0]
    if size > 1 and task == "caption":
        raise SettingsError("--gpus-per-replica: does not apply to bench caption")
    notes = []
    if model == "auto" and device.gpu is None and nvidia.evidence():
        model = "tiny"  # the rows are the bench's own
    if not synthetic_model and _would_download(task, model, device):
        fitting = [name for name, its in synthetic.TASKS.items() if its == task and _room(device) > _needed("bfloat16")]
        synthetic_model = fitting[0] if fitting else ""
        model = "auto" if fitting else "tiny"
        notes.append(
            f"{AUTO_ON_GPU[task]} is not on this machine, and a bench downloads nothing: "
            + (
                f"--synthetic {synthetic_model}, which is as fast, replaces it"
                if fitting
                else "the embedded model is measured instead"
            )
        )
    if synthetic_model:
        model = str(synthetic.make(synthetic_model, out / f"synthetic-{synthetic_model}"))
    settings = fastgen.resolve(task, out=out, model=model, gpus=gpus, gpus_per_replica=gpus_per_replica, **flags)
    if len(settings.placement.devices) > 1:
        if gpus:
            raise SettingsError(f"--gpus {gpus}: a bench measures one {'replica' if size > 1 else 'device'}; name one")
        settings = replace(settings, placement=replace(settings.placement, devices=settings.placement.devices[:1]))
    if synthetic_model and _room(device) < _needed(settings.engine.dtype):
        raise SettingsError(
            f"--synthetic {synthetic_model}: its parts take {_needed(settings.engine.dtype):.0f} GiB in "
            f"{settings.engine.dtype}, "
            f"and {device.name} "
            f"has {_room(device):.0f}; use a larger GPU, or leave --synthetic out, which measures the embedded model"
        )
    return replace(settings, run=replace(settings.run, notes=(*settings.run.notes, *notes)))


def _refuse_foreign(task: str, synthetic_model: str, tune: bool, model: str, flags: dict) -> None:
    """Raise SettingsError for flags that do not apply; remove from `flags` those that the task does not have."""
    if task not in OUTPUT_KEYS:
        raise SettingsError(f"bench {task}: one of {', '.join(OUTPUT_KEYS)}")
    foreign = ("size", "steps", "batch_size", "dtype", "profile") if task == "caption" else ("vllm_command",)
    for name in foreign:
        if flags.pop(name, None) not in (None, "auto"):
            raise SettingsError(f"--{name.replace('_', '-')}: does not apply to bench {task}")
    if task == "caption" and tune:
        raise SettingsError("--tune: works for t2i and edit only; the settings for vLLM are in kernels_cfg/vlm*.toml")
    if synthetic_model:
        if synthetic_model not in synthetic.NAMES:
            raise SettingsError(f"--synthetic {synthetic_model}: one of {', '.join(synthetic.NAMES)}")
        if model != "auto":
            raise SettingsError("--synthetic and --model: give one of them")
        if task != synthetic.TASKS[synthetic_model]:
            raise SettingsError(f"--synthetic {synthetic_model}: is for bench {synthetic.TASKS[synthetic_model]}")


def _would_download(task: str, model: str, device: hardware.Device) -> bool:
    return model == "auto" and task != "caption" and bool(device.gpu) and not is_cached(AUTO_ON_GPU[task])


def is_cached(name: str) -> bool:
    """Whether a model of the hub is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "model_index.json"), str)


def _needed(dtype: str) -> float:
    return synthetic.PARAMETERS * BYTES[dtype] / 2**30


def _room(device: hardware.Device) -> float:
    """GiB; infinite if the driver does not report it."""
    return (device.gpu.memory_gib or float("inf")) if device.gpu else hardware.free_main_gib()


def run(
    settings: Settings,
    command: list[str],
    say: Callable[[str], None],
    *,
    flags: dict | None = None,
    only: tuple[str, ...] = (),
    rounds: int = ROUNDS,
    rows: int = 0,
    compare: str = "",
    tune: bool = False,
) -> dict:
    """Measure, and write bench.json, bench.md and bench.png into the folder of the settings.

    Args:
        command: as the user typed it, for the files.
        say: called with one line per step.
        flags: the flags that were given, for `compare`.
        only: arms by name; () for all.
        rows: per round; 0 for as many as the baseline does in some seconds.
        compare: a shell command to time next to `fastgen`, with {rows} and {out} in it.
        tune: also search batch sizes and options, and write profile.toml.

    Returns:
        The content of bench.json.

    Raises:
        FastgenError: nothing could be measured, or an additional part failed; what was measured before is
            written.
    """
    number("--rounds", rounds, 1, 1000)
    number("--rows", rows, 0, 1_000_000)
    contestants = arms(settings, only)
    load_before, cores = noise.load(), len(os.sched_getaffinity(0))
    out = Path(settings.run.out)
    try:
        with _own(out):
            _say_before(settings, noise.others(load_before, cores), say)
            most = peak.of_hardware(settings)
            work = Work(settings, out / "arms" / "inputs")
            measurement = Measurement(contestants, work, out / "arms", rounds=rounds, rows=rows, say=say)
            measurement.run()
            facts = report.about(settings, command, measurement, most) | _replica(settings, say)
            facts |= {"load_before": round(load_before, 2), "cores": cores}
            found: dict = {"about": facts, "arms": _figures(measurement, work, most[0], facts, out)}
            _write(found, out)
            if compare:
                given = (compare, settings.task, flags or {})
                found["commands"] = commands.time_both(*given, work, out / "commands", measurement.rows, rounds, say)
            if tune:
                found["tune"] = search(settings, out, rounds, measurement.rows, facts, say)
            if compare or tune:
                _write(found, out)
            say(f"wrote bench.md, bench.json and bench.png in {out}")
            return found
    except OSError as error:
        raise DiskError(f"{error.filename or out}: {error.strerror or error}") from None


def _say_before(settings: Settings, busy: str, say: Callable[[str], None]) -> None:
    for note in settings.run.notes:
        say(f"note: {note}")
    if busy:
        say(f"warning: {busy}")


def _figures(measurement: Measurement, work: Work, most_flops: float, facts: dict, out: Path) -> list[dict]:
    """Those of each arm, with the command that measures it again."""
    arms = [one.as_dict(work, most_flops) for one in measurement.figures]
    for arm in arms:
        if "ratio" in arm:
            arm["again"] = report.rerun(facts, arm["name"], os.path.relpath(out))
    return arms


def _replica(settings: Settings, say: Callable[[str], None]) -> dict:
    """What to expect of a replica of several devices."""
    size = settings.placement.devices[0].size
    if size == 1:
        return {}
    expected = pipeline.of_replica(size, settings.image.steps)
    say(expected)
    return {"gpus_per_replica": size, "pipeline": expected}


def _write(found: dict, out: Path) -> None:
    report.write_json(out / "bench.json", found)
    (out / "bench.md").write_text(report.markdown(found), "utf-8")
    chart.draw(found, out / "bench.png")


@contextmanager
def _own(out: Path) -> Iterator[None]:
    """Claim the folder for one bench, without the files of an earlier one. Other files in it stay.

    Raises:
        RunFolderError: another bench is using it.
    """
    mark = out / MARK
    was_ours = os.path.exists(mark)
    lock = FileLock(mark)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:  # an OSError too
        raise RunFolderError(f"{out}: another bench is using it; wait, or name another folder with -o") from None
    except OSError as error:
        raise RunFolderError(
            f"-o {out}: cannot write there: {error.strerror or error}; name another folder with -o"
        ) from None
    with lock:
        if not was_ours and (taken := [name for name in FOLDERS if (out / name).exists()]):
            raise RunFolderError(
                f"{out}: it contains {taken[0]}, which is not from a bench; name another folder with -o"
            )
        for name in FOLDERS:
            shutil.rmtree(out / name, ignore_errors=True)
        for name in FILES if was_ours else ():
            (out / name).unlink(missing_ok=True)
        yield
