"""The machines of a Ray cluster as devices: how many workers it has room for, and of what kind. Starts no workers."""

from __future__ import annotations

import os
import socket
import sys
from importlib import metadata
from typing import Any

from msgspec.structs import replace

import fastgen
from fastgen.config import hardware
from fastgen.config.hardware import Device, Gpu
from fastgen.errors import SettingsError

CONNECT_S = 60
"""Time for a cluster to answer a question."""
LISTENS_S = 10
"""Time for a port of a cluster to take a connection."""
MOST = 4096


def connect(address: str) -> Any:
    """Join the cluster, unless this process has joined one. Returns the module `ray`.

    Args:
        address: such as "10.0.0.1:6379"; "": the one of RAY_ADDRESS or of this machine, else a new one on this machine.

    Raises:
        SettingsError: Ray is not installed, or the cluster does not answer.
    """
    try:
        import ray
    except ImportError:
        raise SettingsError("--engine ray: Ray is not installed here: pip install 'fastgen-mm[ray]'") from None
    if not ray.is_initialized():
        _check(address or os.environ.get("RAY_ADDRESS", ""))
        try:
            ray.init(address=address or None, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        except Exception as error:  # Ray raises what its parts raise
            where = f"--ray-address {address}" if address else "--engine ray"
            raise SettingsError(f"{where}: no Ray cluster answers there ({error})") from None
    return ray


def _check(address: str) -> None:
    """Raise SettingsError if nothing listens at an address, because Ray itself would try for minutes."""
    if address in ("", "auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or "/" in address.removeprefix("ray://") or not port.isdigit():
        hint = "; that of the dashboard is another one" if address.startswith("http") else ""
        raise SettingsError(f"--ray-address {address}: give HOST:PORT of the cluster, such as 10.0.0.1:6379{hint}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), LISTENS_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise SettingsError(f"--ray-address {address}: no Ray cluster answers there ({error})") from None


def devices(address: str, wanted: str, per_replica: int, most: int) -> tuple[Device, ...]:
    """One device per worker that a run may have, whichever machine it will be on.

    Args:
        wanted: --gpus: "" (GPUs if the cluster has any), "all", "cpu" (one worker per machine) or "cpu:N".
        per_replica: GPUs for each copy of the model.
        most: --max-workers; 0: as many as the cluster has room for now.

    Raises:
        SettingsError: the cluster has none, or `wanted` names single GPUs.
    """
    ray = connect(address)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(int(node.get("GPU", 0)) // per_replica for node in nodes)
    text = wanted.strip().lower()
    if hardware.is_cpu(text) or (not text and not any(node.get("GPU") for node in nodes)):
        if per_replica > 1:
            raise SettingsError(f"--gpus-per-replica {per_replica}: there are no GPUs in this run; leave it out")
        return _on_cpus(wanted, nodes, most)
    if text not in ("", "all"):
        raise SettingsError(f"--gpus {wanted}: Ray chooses the GPUs; say how many workers with --max-workers")
    if not room:
        raise SettingsError(
            f"--engine ray: no machine of the cluster has {per_replica} GPU{'s' * (per_replica > 1)} now; add one, or "
            "use --gpus cpu"
        )
    gpu = _look(ray)
    cores = max(node.get("CPU", 1) * per_replica / node["GPU"] for node in nodes if node.get("GPU"))
    return tuple(
        Device(
            f"ray:{i}",
            "cuda",
            max(1, int(cores)),
            replace(gpu, visible_as=f"ray:{i}"),
            tuple(replace(gpu, visible_as=f"ray:{i}+{k}") for k in range(1, per_replica)),
            per_replica,
        )
        for i in range(min(most or room, MOST))
    )


def _on_cpus(wanted: str, nodes: list[dict], most: int) -> tuple[Device, ...]:
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise SettingsError("--engine ray: no machine of the cluster has a CPU to give")
    asked = len(hardware.resolve_devices(wanted, [])) if ":" in wanted else len(cores)
    threads = max(1, min(*cores, sum(cores) // asked)) if len(cores) > 1 else max(1, cores[0] // asked)
    return tuple(Device(f"ray:{i}", "cpu", threads) for i in range(min(most or asked, MOST)))


def _look(ray: Any) -> Gpu:
    """A GPU of the cluster. Raises SettingsError."""
    try:
        found = ray.get(ray.remote(num_gpus=1, max_retries=0)(_gpus).remote(), timeout=CONNECT_S)
    except Exception as error:
        raise SettingsError(f"--engine ray: a machine with a GPU does not say which one it has: {error}") from None
    if not found:
        raise SettingsError("--engine ray: Ray has a GPU that nvidia-smi does not show")
    return found[0]


def _gpus() -> list[Gpu]:
    return hardware.find_gpus()


def versions() -> dict[str, str]:
    """What must be equal on all machines, because results depend on it or messages would not be understood."""
    found = {"fastgen": fastgen.__version__, "Python": ".".join(map(str, sys.version_info[:2]))}
    for name in ("torch", "diffusers", "transformers", "msgspec"):
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def difference(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """Which versions differ, for messages; "" if none."""
    return ", ".join(
        f"{name} is {theirs.get(name, 'none')} there and {version} here"
        for name, version in ours.items()
        if theirs.get(name) != version
    )
