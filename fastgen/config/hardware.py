"""The devices of this machine as a user names them: GPUs by CUDA_VISIBLE_DEVICES and --gpus, and the CPU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec

from fastgen.config import nvidia
from fastgen.config.nvidia import Card
from fastgen.errors import SettingsError


class Gpu(msgspec.Struct, frozen=True):
    index: int
    """The user's number: position among the visible GPUs."""
    visible_as: str
    """The value of CUDA_VISIBLE_DEVICES with which a process sees only this GPU."""
    name: str
    memory_gib: float
    compute_capability: str
    driver: str = ""
    """The version of its driver; "" if unknown."""
    problem: str = ""
    """Why it cannot be used; "" if it can."""


class Device(msgspec.Struct, frozen=True):
    """Where one engine process runs."""

    name: str
    """cuda:0, cpu, cpu:1 ...: the worker's name in logs."""
    kind: str
    """"cuda" or "cpu"."""
    threads: int
    """CPU threads for the engine's own arithmetic."""
    gpu: Gpu | None = None
    others: tuple[Gpu, ...] = ()
    """More GPUs, over which one copy of the model is split; see replicas.py."""
    size: int = 1
    """Over how many GPUs, or devices of the CPU, in all."""

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        return (self.gpu, *self.others) if self.gpu else ()


def find_gpus(cpu: str = "--gpus cpu") -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES makes visible, in that order, including those that cannot be used; [] on a
    machine without GPUs, or if the variable hides them all.

    Args:
        cpu: what the user can write instead, for messages.
    Raises:
        SettingsError: GPUs are evidently meant, and none can be used, or the variable names one that is not there.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hides_all(visible):
        return []
    try:
        cards = nvidia.find_cards()
        units = _named(visible, cards) if visible is not None else _units(cards)
    except SettingsError as error:
        raise SettingsError(f"{error}; if you mean the CPU, use {cpu}") from None
    return [
        Gpu(i, one.uuid or str(one.index), one.name, one.memory_gib, one.compute_capability, one.driver, one.problem)
        for i, one in enumerate(units)
    ]


def hides_all(visible: str | None) -> bool:
    """Whether a value of CUDA_VISIBLE_DEVICES means the CPU."""
    first = (visible or "").split(",")[0].strip().lower()
    return visible is not None and (first.startswith("-") or first in ("", "nodevfiles", "none", "void"))


def _units(cards: list[Card]) -> list[Card]:
    """What one process can use: whole cards, and the MIG slices of the others."""
    return [unit for card in cards for unit in (card.slices or (card,))]


def _named(visible: str, cards: list[Card]) -> list[Card]:
    """The units that a value of CUDA_VISIBLE_DEVICES names. Raises SettingsError."""
    named: dict[Card, None] = {}
    for word in filter(None, (word.strip() for word in visible.split(","))):
        if word.startswith("-"):  # as for CUDA, the list ends here
            break
        if word.isdigit():  # of a card in slices CUDA takes the first
            found = [(card.slices or (card,))[0] for card in cards if card.index == int(word)]
        else:
            found = [unit for unit in _units(cards) if unit.uuid.startswith(word)]
        if len(found) != 1:
            there = "; ".join(f"{unit.uuid or unit.index} {unit.problem or unit.name}" for unit in _units(cards))
            raise SettingsError(
                f"CUDA_VISIBLE_DEVICES={visible}: {'several GPUs are' if found else 'no GPU here is'} {word} "
                f"({f'there are {there}' if there else 'there are none'}). Correct it or unset it"
            )
        named[found[0]] = None
    return list(named)


def find_devices(wanted: str) -> tuple[Device, ...]:
    """`--gpus` as devices of this machine. Raises SettingsError; see `find_gpus` and `resolve_devices`."""
    return resolve_devices(wanted, [] if is_cpu(wanted) else find_gpus())


def is_cpu(wanted: str) -> bool:
    """Whether a value of --gpus asks for the CPU."""
    return wanted.strip().lower().partition(":")[0] == "cpu"


def resolve_devices(wanted: str, gpus: list[Gpu]) -> tuple[Device, ...]:
    """`--gpus` as devices, one engine process each.

    Args:
        wanted: "" (all GPUs, else cpu), "all", "0,1", "cpu" or "cpu:N".
    Raises:
        SettingsError: a GPU does not exist, or a value is unknown.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = wanted.strip().lower() or ("all" if gpus else "cpu")
    kind, colon, count = text.partition(":")
    if kind == "cpu":
        if (colon and not count) or (count and not (count.isascii() and count.isdigit() and 1 <= int(count) <= 256)):
            raise SettingsError(f"--gpus {wanted}: 'cpu:' must be followed by a number of processes from 1 to 256")
        workers = int(count or 1)
        threads = max(1, cores // workers)
        return tuple(Device(f"cpu:{i}" if workers > 1 else "cpu", "cpu", threads) for i in range(workers))
    if text == "all":
        chosen = list(range(len(gpus)))
        if not chosen:
            raise SettingsError("--gpus all: no CUDA GPU is visible here; use --gpus cpu")
    else:
        if not all(part.strip().isascii() and part.strip().isdigit() for part in text.split(",")):
            raise SettingsError(f"--gpus {wanted}: give GPU numbers (0,1), 'all', 'cpu' or 'cpu:N'")
        chosen = list(dict.fromkeys(int(part) for part in text.split(",")))
        there = f"this machine has {len(gpus)}: 0 to {len(gpus) - 1}" if gpus else "no CUDA GPU is visible here"
        for index in chosen:
            if index >= len(gpus):
                mend = f"choose from {', '.join(str(g.index) for g in gpus)}" if gpus else "use --gpus cpu"
                raise SettingsError(f"--gpus {wanted}: there is no GPU {index} ({there}); {mend}")
    _refuse_broken([gpus[i] for i in chosen], gpus)
    threads = max(1, cores // len(chosen))
    return tuple(Device(f"cuda:{i}", "cuda", threads, gpus[i]) for i in chosen)


def _refuse_broken(chosen: list[Gpu], gpus: list[Gpu]) -> None:
    """Raise SettingsError if one of the chosen GPUs cannot be used."""
    broken = [gpu for gpu in chosen if gpu.problem]
    if not broken:
        return
    whole = [gpu for gpu in (chosen if any(not gpu.problem for gpu in chosen) else gpus) if not gpu.problem]
    names = "; ".join(f"GPU {gpu.index} cannot be used: {gpu.problem}" for gpu in broken)
    rest = f"use the others with --gpus {','.join(str(gpu.index) for gpu in whole)}" if whole else "use --gpus cpu"
    raise SettingsError(f"{names}. Reset it (nvidia-smi --gpu-reset) or restart the machine, or {rest}")


def child_environment(device: Device) -> dict[str, str]:
    """The environment of a child process that sees only this device."""
    visible = ",".join(gpu.visible_as for gpu in device.gpus)
    return {**os.environ, "CUDA_VISIBLE_DEVICES": visible, "PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path()}


def python_path() -> str:
    """The environment in which a child finds the same fastgen, even if it is not installed."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))


def free_main_gib() -> float:
    """Main memory that processes could still use, by Linux's own estimate; 0.0 if there is none."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return 0.0


def free_gpu_gib(gpu: Gpu) -> float:
    """Free memory of a GPU; 0.0 if the driver does not report it."""
    try:
        text = subprocess.run(
            ["nvidia-smi", "-i", gpu.visible_as, "--query-gpu=memory.free", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0.0
    return nvidia.gib(text.strip())
