"""How the processes of a replica find each other: torch.distributed, NCCL on GPUs and gloo on CPUs, on this machine
alone. Does not know what they compute."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist


def join(folder: str, number: int, count: int, device: torch.device) -> None:
    """Wait for the others, and be connected with them.

    Args:
        folder: only this user can write there.
    """
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):  # nothing else on the network can reach them
        os.environ.setdefault(name, "lo")
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.FileStore(str(Path(folder, "store")), count),
        rank=number,
        world_size=count,
        device_id=device if on_gpu else None,
    )


def device_of(kind: str, number: int) -> torch.device:
    """The device of one of the processes."""
    return torch.device(kind, number) if kind == "cuda" else torch.device("cpu")
