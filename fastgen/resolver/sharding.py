"""Which backends can split a model over the devices of a replica, and how. Pure."""

from __future__ import annotations

import json
from pathlib import Path

from msgspec.structs import replace

from fastgen.config.backends import BackendSpec
from fastgen.config.hardware import Device
from fastgen.config.model_cards import ModelCard
from fastgen.config.optimizations import CudaGraphs, Optimizations, Shard
from fastgen.errors import SettingsError
from fastgen.opt import context
from fastgen.resolver.flags import Flags
from fastgen.types import Task

ONLY = {
    "caption": "only a vLLM server that this command starts can split a model over several GPUs (caption --backend "
    "vllm without --base-url)",
    "t2i": "only the engine on this machine can split a model over several GPUs (--backend local)",
}


def only(task: Task) -> str:
    """What can split a model, for messages."""
    return ONLY.get(task, ONLY["t2i"])


def can_split(spec: BackendSpec, base_url: str | None) -> bool:
    """Whether a backend can split a model over several devices."""
    return spec.optimizes or (spec.starts_server and not base_url)


def choose(flags: Flags, chosen: Optimizations, devices: tuple[Device, ...]) -> Optimizations:
    """The choices for replicas of this size.

    Raises:
        SettingsError: a replica has one device, and --parallel was given.
    """
    size = devices[0].size
    if size == 1:
        if not chosen.shard.is_plain:
            raise SettingsError(
                f"--parallel {chosen.shard.word()}: each replica has one device; add --gpus-per-replica 2"
            )
        return chosen
    why = dict(chosen.why)
    if chosen.shard.is_plain:
        why["parallel"] = f"--gpus {flags.gpus}" if "+" in flags.gpus else f"--gpus-per-replica {size}"
    if chosen.cuda_graphs.on and not why["cuda_graphs"].startswith("--"):
        chosen = replace(chosen, cuda_graphs=CudaGraphs())
        why["cuda_graphs"] = "a recorded step belongs to one GPU"
    return replace(chosen, shard=Shard("shard") if chosen.shard.is_plain else chosen.shard, why=why)


def check_heads(card: ModelCard, chosen: Optimizations, devices: tuple[Device, ...]) -> None:
    """With --parallel context: whether each device can have as many attention heads as the others.

    Raises:
        SettingsError: it cannot; the message names a number of devices that works. Or the family has no attention over
            several devices.
    """
    if chosen.shard.kind != "context":
        return
    if card.family != "flux":
        raise SettingsError(f"--parallel context: only FLUX.1 models, and {card.name} is none; use --parallel shard")
    config = Path(card.path, "transformer", "config.json")
    if not config.exists():
        return
    heads = json.loads(config.read_text("utf-8")).get("num_attention_heads", 1)
    if why := context.refuse_heads(heads, devices[0].size):
        raise SettingsError(why)


def notes(chosen: Optimizations, devices: tuple[Device, ...]) -> list[str]:
    """What a user should know of --parallel context."""
    if chosen.shard.kind != "context":
        return []
    size = devices[0].size
    return [
        f"--parallel context: {size} devices make each image together, so that it is there sooner; {size} replicas of "
        "one device (without --gpus-per-replica) make more images per hour"
    ]
