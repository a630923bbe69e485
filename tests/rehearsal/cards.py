"""The GPUs that are rehearsed, as data sheets and `nvidia-smi` describe them, and a `nvidia-smi` that reports one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

from fastgen.config import hardware

HOST_GIB = 60.0
"""Free main memory beside each card."""
CONTEXT_GIB = 0.6
"""What the CUDA context and the handles of cuBLAS and cuDNN take, typically, and PyTorch cannot give away."""


@dataclass(frozen=True)
class Card:
    name: str
    sold_as_gb: int
    """The memory that is printed on the box."""
    total_mib: int
    """What `nvidia-smi` reports."""
    gib: float
    """What processes can get of it, the CUDA context included."""
    compute_capability: tuple[int, int]

    @property
    def memory_bytes(self) -> int:
        return int(self.gib * 2**30)


CARDS = (
    Card("NVIDIA GeForce RTX 4070", 12, 12282, 11.6, (8, 9)),
    Card("NVIDIA GeForce RTX 4080", 16, 16376, 15.6, (8, 9)),
    Card("NVIDIA GeForce RTX 4090", 24, 24564, 23.5, (8, 9)),
    Card("NVIDIA GeForce RTX 5090", 32, 32607, 31.3, (12, 0)),
    Card("NVIDIA A100-SXM4-40GB", 40, 40960, 39.4, (8, 0)),
    Card("NVIDIA L40S", 48, 46068, 44.4, (8, 9)),
    Card("NVIDIA H100 80GB HBM3", 80, 81559, 79.1, (9, 0)),
    Card("NVIDIA H200", 141, 143771, 139.8, (9, 0)),
)
MAIN_MEMORY = (
    ("fastgen.config.fit.card", "free_host_gib", HOST_GIB),
    ("fastgen.opt.parked", "free_memory", int(HOST_GIB * 2**30)),
)
"""What asks for it: module, function, its answer."""
BY_GB = {card.sold_as_gb: card for card in CARDS}

SCRIPT = """#!/bin/sh
# Answers the queries of fastgen/config/hardware.py for cards that nobody else uses.
numbers="{numbers}"
for word in "$@"; do
  case "$word" in
    -L) for n in $numbers; do echo "GPU $n: {name} (UUID: GPU-$n)"; done; exit 0 ;;
    --query-gpu=*) fields=${{word#--query-gpu=}} ;;
    GPU-*) numbers=${{word#GPU-}} ;;
  esac
done
for n in $numbers; do
line=
for field in $(echo "$fields" | tr ',' ' '); do
  case "$field" in
    index|count) value=$n ;;
    uuid) value=GPU-$n ;;
    name) value="{name}" ;;
    memory.total) value={total} ;;
    memory.free) value={free} ;;
    memory.used) value=0 ;;
    compute_cap) value={capability} ;;
    driver_version) value=580.65.06 ;;
    mig.mode.current) value=Disabled ;;
    *) value="[N/A]" ;;
  esac
  line="$line${{line:+, }}$value"
done
echo "$line"
done
"""


@contextmanager
def installed(card: Card, folder: Path, count: int = 1) -> Iterator[None]:
    """Inside the block, `nvidia-smi` reports so many of this card, and there is enough main memory to stream from."""
    folder.mkdir(parents=True, exist_ok=True)
    free = int(card.gib * 1024)
    capability = ".".join(map(str, card.compute_capability))
    script = folder / "nvidia-smi"
    numbers = " ".join(map(str, range(count)))
    text = SCRIPT.format(name=card.name, numbers=numbers, total=card.total_mib, free=free, capability=capability)
    script.write_text(text)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, {"PATH": path}))
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        stack.enter_context(patch.object(hardware, "free_main_gib", lambda: HOST_GIB))
        for module, name, free in MAIN_MEMORY:
            with suppress(ModuleNotFoundError):
                stack.enter_context(patch.object(import_module(module), name, lambda free=free: free))
        yield
