"""How much memory a run may use: of a GPU, and of the machine. Memory that engines of this process hold counts as free,
because a run ends them or takes them over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from fastgen.config import hardware
from fastgen.config.hardware import Device, Gpu

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
DRIVER = 0.02
"""Of a GPU's memory, what the driver keeps for itself, if it does not report what is free: a "24 GB" RTX 4090 has 24.0
GiB in all and 23.5 for programs."""

MUCH = 0.1
"""Of a GPU's memory: more than a desktop takes."""


class Card(msgspec.Struct, frozen=True):
    """The GPU with the least room among those of a run, and the main memory."""

    name: str
    """Such as "cuda:0 (NVIDIA L4)"."""
    free_gib: float
    total_gib: float
    """Without what the driver keeps."""
    host_gib: float = 0.0
    """Free main memory; 0.0 if unknown."""
    engines: int = 1
    """Engines that share the main memory: one for each replica."""
    rooms_gib: tuple[float, ...] = ()
    """Free memory of each GPU of a replica; of several replicas the least."""

    @property
    def others(self) -> str:
        """What other programs hold, if it is much."""
        held = self.total_gib - self.free_gib
        return f"other programs hold {held:.1f} GiB of this GPU" if held > MUCH * self.total_gib else ""


def of(devices: tuple[Device, ...]) -> Card | None:
    """The card to plan for; None on a CPU, and if a driver does not report its memory."""
    replicas = [[_card(device, gpu) for gpu in device.gpus] for device in devices]
    if not all(replicas) or not all(gpu.memory_gib for device in devices for gpu in device.gpus):
        return None
    least = min((card for cards in replicas for card in cards), key=lambda card: card.free_gib)
    rooms = tuple(min(card.free_gib for card in cards) for cards in zip(*replicas, strict=True))
    ours = any(_has_engine(gpu.visible_as) for device in devices for gpu in device.gpus)
    host_gib = 0.0 if ours else free_host_gib()
    return msgspec.structs.replace(least, host_gib=host_gib, engines=len(devices), rooms_gib=rooms)


def _card(device: Device, gpu: Gpu) -> Card:
    total = round(gpu.memory_gib * (1 - DRIVER), 2)
    free = 0.0 if _has_engine(gpu.visible_as) else hardware.free_gpu_gib(gpu)
    return Card(f"{device.name} ({gpu.name})", free or total, max(free, total))


def _has_engine(visible_as: str) -> bool:
    """Whether a child of this process works on that GPU, alone or with others of its replica."""
    for child in _children(os.getpid()):
        with suppress(OSError):
            if any(visible_as in value.split(",") for value in _visible(PROC / str(child) / "environ")):
                return True
    return False


def _visible(environ: Path) -> Iterator[str]:
    """The value of CUDA_VISIBLE_DEVICES in a process's environment, if it has one."""
    for entry in environ.read_bytes().split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"CUDA_VISIBLE_DEVICES":
            yield value.decode(errors="replace")


def _children(process: int) -> Iterator[int]:
    for path in (PROC / str(process) / "task").glob("*/children"):
        with suppress(OSError, ValueError):
            yield from map(int, path.read_text().split())


def free_host_gib() -> float:
    """Main memory that this process and its children could still use, also under a container's or a job's limit; 0.0
    if unknown."""
    found = [hardware.free_main_gib(), *(room for folder in _cgroups() if (room := _room(folder)) is not None)]
    return max(0.0, min(found))


def _cgroups() -> Iterator[Path]:
    """The control groups (version 2) of this process, from the innermost out."""
    with suppress(OSError, StopIteration):
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
        own = CGROUPS / next(line[3:] for line in lines if line.startswith("0::")).lstrip("/")
        yield from (path for path in (own, *own.parents) if path == CGROUPS or CGROUPS in path.parents)


def _room(folder: Path) -> float | None:
    """What a control group has left, in GiB; None without a limit. Cached files do not count as used."""
    try:
        most = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return (most - used + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))) / 2**30
