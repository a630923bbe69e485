"""Where workers run: processes of this machine, or the machines of a Ray cluster (--engine ray)."""

from __future__ import annotations

from collections.abc import Collection

from fastgen.config import hardware, ray_cluster, replicas
from fastgen.config.backends import BackendSpec
from fastgen.config.checks import number
from fastgen.config.hardware import Device
from fastgen.config.profile import Profile
from fastgen.config.settings import Placement
from fastgen.errors import SettingsError
from fastgen.resolver.flags import Flags

ENGINES = ("process", "ray")
FOR_RAY = {"ray_address": "--ray-address", "min_workers": "--min-workers", "max_workers": "--max-workers"}


def check(flags: Flags, specs: Collection[BackendSpec]) -> None:
    """Raise SettingsError if --engine and its flags cannot be honoured."""
    if flags.engine not in ("", *ENGINES):
        raise SettingsError(f"--engine {flags.engine}: one of {', '.join(ENGINES)}")
    if flags.engine != "ray":
        given = next((called for name, called in FOR_RAY.items() if getattr(flags, name) is not None), "")
        if given:
            raise SettingsError(f"{given}: only for --engine ray")
        return
    if all(spec.is_remote and not spec.starts_server for spec in specs):
        raise SettingsError("--engine ray: services do all the work of this run, so it has nothing to run there")
    least, most = _limits(flags)
    if most and least > most:
        raise SettingsError(f"--min-workers {least}: must not be above --max-workers {most}")


def devices(flags: Flags, gpus: str, size: int, needed: bool) -> tuple[Device, ...]:
    """One device per worker.

    Args:
        gpus: --gpus without groups; size: devices per replica.
        needed: whether anything is computed on them.

    Raises:
        SettingsError: there are none such.
    """
    if flags.engine != "ray" or not needed:
        return replicas.group(hardware.find_devices(gpus), size)
    least, most = _limits(flags)
    found = ray_cluster.devices(flags.ray_address or "", gpus, size, most)
    if len(found) < least:
        raise SettingsError(f"--min-workers {least}: the cluster has room for {len(found)}; add --max-workers {least}")
    return found


def placement(flags: Flags, devices: tuple[Device, ...], profile: Profile) -> Placement:
    """The part of the settings."""
    if flags.engine != "ray" or devices[0].kind == "endpoint" or not devices[0].name.startswith("ray:"):
        return Placement(devices, profile)
    return Placement(devices, profile, "ray", flags.ray_address or "", _limits(flags)[0])


def _limits(flags: Flags) -> tuple[int, int]:
    """The fewest and the most workers; 0: as many as there is room for. Raises SettingsError."""
    least = 1 if flags.min_workers is None else number("--min-workers", flags.min_workers, 1, ray_cluster.MOST)
    most = 0 if flags.max_workers is None else number("--max-workers", flags.max_workers, 1, ray_cluster.MOST)
    return least, most
