"""The flags of a run as they were given, by the names of the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from fastgen.config.backends import OPTIONS
from fastgen.config.optimizations import BY_NAME
from fastgen.types import Task


@dataclass(frozen=True)
class Flags:
    """One field per argument of `fastgen.resolve`, which has the defaults."""

    task: Task
    input: str | os.PathLike | None
    out: str | os.PathLike | None
    model: str
    backend: str
    gpus: str
    size: str | None
    steps: int | None
    guidance: float | None
    n: int
    seed: int
    dtype: str
    batch_size: int | str
    format: str
    output_key: str | None
    image_root: str | os.PathLike | None
    lora: tuple[str, ...] | list[str]
    transformer: str | None
    max_sequence_length: int | None
    limit: int | None
    fresh: bool
    retry_failed: bool
    quality: str
    background: str
    aspect_ratio: str
    resolution: str
    prompt: str
    system: str
    max_tokens: int
    temperature: float
    max_pixels: int | None
    schema: str | os.PathLike | dict | None
    base_url: str | None
    vllm_command: str | None
    max_inflight: int | None
    rpm: int
    timeout: float | None
    fallback: str
    fallback_on_refusal: bool
    max_cost: float
    attention: str
    compile: bool | None
    quantize: str
    cache: str
    offload: str
    cuda_graphs: bool | None
    profile: str | os.PathLike | None
    gpus_per_replica: int | None

    @property
    def optimizations(self) -> dict[str, Any]:
        """The flags for single optimizations."""
        return {kind.flag: getattr(self, kind.flag) for kind in BY_NAME.values() if hasattr(self, kind.flag)}

    @property
    def options(self) -> dict[str, str]:
        """The options for services that are set."""
        return {name: value for name in OPTIONS if (value := getattr(self, name))}
