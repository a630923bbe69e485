"""Replicas: the groups of devices of which each runs one copy of a model. Does not know how a model is split over
them."""

from __future__ import annotations

from msgspec.structs import replace

from fastgen.config.hardware import Device
from fastgen.errors import SettingsError

MOST = 64


def parse(gpus: str, per_replica: int) -> tuple[str, int]:
    """--gpus and --gpus-per-replica -> the GPUs without groups, and how many each replica gets.

    Args:
        gpus: such as "0,1,2,3", "cpu:4" or, with groups, "0+1,2+3".
        per_replica: 0 if it was not given.

    Raises:
        SettingsError: the two say different things, or a GPU is in two groups.
    """
    if per_replica and not 1 <= per_replica <= MOST:
        raise SettingsError(f"--gpus-per-replica {per_replica}: must be a number of GPUs from 1 to {MOST}")
    if "+" not in gpus:
        return gpus, per_replica or 1
    groups = [[part.strip() for part in group.split("+")] for group in gpus.split(",")]
    named = [part for group in groups for part in group]
    if not all(part.isascii() and part.isdigit() for part in named):
        raise SettingsError(f"--gpus {gpus}: give groups of GPU numbers, such as 0+1,2+3")
    if len({int(part) for part in named}) < len(named):
        raise SettingsError(f"--gpus {gpus}: a GPU is there twice; each can be in one group only")
    sizes = [len(group) for group in groups]
    if len(set(sizes)) > 1:
        raise SettingsError(f"--gpus {gpus}: give all groups the same number of GPUs")
    if per_replica and per_replica != sizes[0]:
        raise SettingsError(f"--gpus {gpus} has groups of {sizes[0]}, but --gpus-per-replica is {per_replica}")
    return ",".join(named), sizes[0]


def group(devices: tuple[Device, ...], size: int) -> tuple[Device, ...]:
    """One device per replica, in the order of the devices.

    Args:
        size: GPUs, or devices of the CPU (`--gpus cpu:4`), per replica.

    Raises:
        SettingsError: the GPUs cannot be divided so, or are slices.
    """
    if size == 1:
        return devices
    if sliced := next((device for device in devices if device.gpu and device.gpu.visible_as.startswith("MIG-")), None):
        raise SettingsError(
            f"--gpus-per-replica {size}: {sliced.name} is a MIG slice, and CUDA shows a process only one; use one "
            "slice per replica, or switch MIG off"
        )
    if len(devices) % size:
        if devices[0].kind == "cpu":
            fix = f"ask for {size} of them with --gpus cpu:{size}"
            raise SettingsError(f"--gpus-per-replica {size}: the CPU is {len(devices)} devices in this run; {fix}")
        raise SettingsError(
            f"--gpus-per-replica {size}: {len(devices)} GPUs cannot be divided into groups of {size}; choose with "
            f"--gpus, such as --gpus {'+'.join(str(number) for number in range(size))}"
        )
    return tuple(_join(devices[start : start + size]) for start in range(0, len(devices), size))


def first(device: Device) -> Device:
    """The first GPU, or device of the CPU, of a replica alone."""
    if device.size == 1:
        return device
    kind, _, numbers = device.name.partition(":")
    name = f"{kind}:{numbers.partition('+')[0]}"
    return replace(device, name=name, threads=max(1, device.threads // device.size), others=(), size=1)


def _join(devices: tuple[Device, ...]) -> Device:
    first, *rest = devices
    numbers = "+".join(device.name.partition(":")[2] for device in devices)
    others = tuple(device.gpu for device in rest if device.gpu is not None)
    threads = sum(device.threads for device in devices)
    return replace(first, name=f"{first.kind}:{numbers}", threads=threads, others=others, size=len(devices))
