"""How the processes of a replica find each other: torch.distributed, NCCL on GPUs and gloo on CPUs, on this machine
alone. Does not know what they compute."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist


def join(folder: str, number: int, count: int, device: torch.device, time: int = 0) -> None:
    """Wait for the others, and be connected with them.

    Args:
        folder: only this user can write there.
        time: how often they have been connected before.
    """
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):  # nothing else on the network can reach them
        os.environ.setdefault(name, "lo")
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.FileStore(str(Path(folder, f"store-{time}")), count),
        rank=number,
        world_size=count,
        device_id=device if on_gpu else None,
    )


def leave() -> None:
    """End the connection. Whoever exchanges something with this process at that moment gets an error, with gloo at
    once."""
    if dist.is_initialized():
        dist.destroy_process_group()


def interrupt(device: torch.device) -> None:
    """Have a GPU give up what it exchanges with others, so that the thread that waits for it goes on. From any
    thread."""
    if device.type == "cuda" and dist.is_initialized():
        dist.distributed_c10d._abort_process_group()


def device_of(kind: str, number: int) -> torch.device:
    """The device of one of the processes."""
    return torch.device(kind, number) if kind == "cuda" else torch.device("cpu")
