"""Which GPUs there are. It asks the driver's own tool, so that this process never starts CUDA."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec

from fastgen.errors import SettingsError


class Gpu(msgspec.Struct, frozen=True):
    index: int
    """The user's number: position among the visible GPUs."""
    visible_as: str
    """The value of CUDA_VISIBLE_DEVICES with which a process sees only this GPU."""
    name: str
    memory_gib: float
    compute_capability: str


class Device(msgspec.Struct, frozen=True):
    """Where one engine process runs."""

    name: str
    """cuda:0, cpu, cpu:1 ...: the worker's name in logs."""
    kind: str
    """"cuda" or "cpu"."""
    threads: int
    """CPU threads for the engine's own arithmetic."""
    gpu: Gpu | None = None


def find_gpus() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES makes visible, in that order; [] without a driver."""
    fields = "index,uuid,name,memory.total,compute_cap"
    try:
        text = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") == 4]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [v.strip() for v in visible.split(",") if v.strip()]
        rows = [row for v in names for row in rows if row[0] == v or row[1].startswith(v)]
    return [Gpu(i, row[1], row[2], _gib(row[3]), row[4]) for i, row in enumerate(rows)]


def _gib(mib: str) -> float:
    """0.0 if the driver does not report it, as for memory that is shared with the CPU."""
    return round(float(mib) / 1024, 1) if mib.replace(".", "").isdigit() else 0.0


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
    threads = max(1, cores // len(chosen))
    return tuple(Device(f"cuda:{i}", "cuda", threads, gpus[i]) for i in chosen)


def child_environment(device: Device) -> dict[str, str]:
    """The environment of a child process that sees only this device."""
    visible = device.gpu.visible_as if device.gpu else ""
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
    return _gib(text.strip())
