"""Whether the PyTorch that is installed here can use a GPU, read from its files: importing it would take seconds."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from fastgen.config.hardware import Device, Gpu
from fastgen.config.settings import Settings
from fastgen.config.versions import ENGINE, unfit

OLDEST_DRIVER = {"13": 580, "12": 525, "11": 450}
"""CUDA's main version -> the first driver branch that runs it (release notes of the CUDA Toolkit)."""
LOWEST_CAPABILITY = {"13": 7.5}
"""CUDA's main version -> the oldest GPUs that it has code for."""
INSTALL = "see https://pytorch.org/get-started/locally"


def refuse_run(settings: Settings) -> str:
    """Why the engines of a run cannot use this PyTorch, its libraries or their GPUs; "" if they can."""
    devices = [d for link in settings.route if link.backend.optimizes for d in link.placement.devices]
    return refuse_devices(devices)


def refuse_devices(devices: Collection[Device]) -> str:
    """The same of some devices, of which each has an engine."""
    if devices and (reason := next(filter(None, map(unfit, ENGINE)), "")):
        return reason
    reasons = (f"{device.name}: {reason}" for device in devices if device.gpu and (reason := refuse(device.gpu)))
    return next(reasons, "")


def refuse(gpu: Gpu) -> str:
    """Why the PyTorch of this environment cannot run on a GPU, and the fix; "" if it can or nothing is known."""
    found = _versions()
    if found is None:
        return ""
    version, cuda, hip = found
    if hip:
        return ""
    cpu = "or use --gpus cpu"
    if not cuda:
        return (
            f"this PyTorch ({version}) is a build for the CPU, and {gpu.name} needs one for CUDA: "
            f"pip install --force-reinstall torch=={version.partition('+')[0]} ({INSTALL}), {cpu}"
        )
    main = cuda.partition(".")[0]
    branch, oldest = gpu.driver.partition(".")[0], OLDEST_DRIVER.get(main, 0)
    if branch.isdigit() and int(branch) < oldest:
        older = next((name for name, least in OLDEST_DRIVER.items() if least <= int(branch)), "")
        other = f"install a PyTorch for CUDA {older} ({INSTALL}), " if older else ""
        return (
            f"the driver {gpu.driver} is too old for this PyTorch ({version}, CUDA {cuda}), which needs {oldest} or "
            f"newer: update the driver, {other}{cpu}"
        )
    lowest = LOWEST_CAPABILITY.get(main, 0.0)
    if gpu.compute_capability and float(gpu.compute_capability) < lowest:
        return (
            f"this PyTorch ({version}, CUDA {cuda}) has no code for {gpu.name} (compute capability "
            f"{gpu.compute_capability}; it needs {lowest}): install a PyTorch for CUDA 12 ({INSTALL}), {cpu}"
        )
    return ""


def cuda_version() -> str:
    """Of the PyTorch of this environment, such as "13.0"; "" if it is a build without CUDA, or unknown."""
    found = _versions()
    return found[1] if found else ""


def _versions() -> tuple[str, str, str] | None:
    """Of torch, its CUDA and its ROCm ("" for none); None if they cannot be read."""
    spec = find_spec("torch")
    if spec is None or not spec.origin:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = dict(re.findall(r"^(__version__|cuda|hip)(?:: [^=]+)? = '?([^'\n]*)'?$", text, re.MULTILINE))
    if "cuda" not in found or "__version__" not in found:
        return None
    return found["__version__"], *("" if found.get(name, "None") == "None" else found[name] for name in ("cuda", "hip"))
