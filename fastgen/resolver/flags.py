"""The flags of a run as they were given, by the names of the command line.

From Python they may have any type: `read` refuses what cannot be meant. It knows types, not ranges or choices.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, get_args, get_type_hints

from fastgen.config.backends import OPTIONS
from fastgen.config.optimizations import BY_NAME
from fastgen.errors import SettingsError, quoted
from fastgen.input.row_schema import is_unicode
from fastgen.types import Task

NAMES = {"task": "task", "input": "INPUT", "out": "-o", "only_rows": "--rows"}
"""How a flag is called in messages, where that is not --its-name."""


@dataclass(frozen=True)
class Flags:
    """One field per argument of `fastgen.resolve`, which has the defaults."""

    task: Task
    input: str | os.PathLike | None
    out: str | os.PathLike | None
    state: str | os.PathLike | None
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
    only_rows: str | os.PathLike | None
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
    thinking: str
    accept_refusals: bool
    extra_body: str | dict | None
    allow_image_hosts: str
    base_url: str | None
    """Several, separated by spaces, are a fleet."""
    vllm_command: str | None
    batch_api: bool
    batch_rows: int | None
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
    progressive: str
    offload: str
    cuda_graphs: bool | None
    profile: str | os.PathLike | None
    gpus_per_replica: int | None
    parallel: str
    engine: str
    ray_address: str | None
    min_workers: int | None
    max_workers: int | None
    shard: str
    prompt_key: str
    image_key: str
    mask_key: str
    id_key: str
    strict: bool
    name: str
    table: str
    webdataset: bool

    @property
    def optimizations(self) -> dict[str, Any]:
        """The flags for single optimizations."""
        return {kind.flag: getattr(self, kind.flag) for kind in BY_NAME.values() if hasattr(self, kind.flag)}

    @property
    def options(self) -> dict[str, str]:
        """The options for services that are set."""
        return {name: value for name in OPTIONS if (value := getattr(self, name))}


def read(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Flags:
    """The flags, with their types checked. None means that a flag is not given. Raises SettingsError."""
    values = {name: defaults[name] if value is None and name != "task" else value for name, value in given.items()}
    if isinstance(urls := values["base_url"], list | tuple):  # addresses have no spaces
        words = [str(url).strip() for url in urls]
        values["base_url"] = (" ".join(words) if all(words) else "") if words else None  # "" is refused as empty
    kinds = {name: get_args(kind) or (kind,) for name, kind in get_type_hints(Flags).items() if name != "task"}
    return Flags(**{name: _checked(name, kinds[name], v) if name in kinds else v for name, v in values.items()})


def called(name: str) -> str:
    """The name of a flag in messages."""
    return NAMES.get(name, f"--{name.replace('_', '-')}")


def _checked(name: str, kinds: tuple[Any, ...], value: Any) -> Any:
    """The value of a flag, as one of the types that it may have. Raises SettingsError."""
    wrong = f"{called(name)} {quoted(value)}".rstrip()
    if value is None or (isinstance(value, dict) and dict in kinds):
        return value
    if bool in kinds:
        if not isinstance(value, bool):
            raise SettingsError(f"{wrong}: must be True or False, not {type(value).__name__}")
        return value
    if name == "lora":
        return _files(name, value)
    if isinstance(value, Real) and not isinstance(value, bool) and (int in kinds or float in kinds):
        return int(value) if isinstance(value, Integral) else float(value)  # numpy's numbers, too
    if float in kinds:
        raise SettingsError(f"{wrong}: must be a number, not {type(value).__name__}")
    if str not in kinds:
        return value  # a whole number: the check of its range says so
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        if int in kinds:
            return value
        path = ", or a Path" if os.PathLike in kinds else ""
        raise SettingsError(f"{wrong}: must be a string{path}, not {type(value).__name__}")
    _check_text(name, text, is_path=os.PathLike in kinds)
    return value if os.PathLike in kinds else text


def _files(name: str, value: Any) -> tuple[str, ...]:
    """Raises SettingsError."""
    items = [value] if isinstance(value, str | os.PathLike) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str | os.PathLike) for item in items):
        raise SettingsError(
            f"{called(name)} {quoted(value)}: must be a list of strings, each PATH or PATH:SCALE of a file"
        )
    texts = tuple(str(os.fspath(item)) for item in items)
    for text in texts:
        _check_text(name, text, is_path=False)
    return texts


def _check_text(name: str, text: str, is_path: bool) -> None:
    """Raise SettingsError if a text could not be written to run.json, or a path could not be used."""
    wrong = f"{called(name)} {quoted(text)}"
    if "\0" in text:
        raise SettingsError(f"{wrong}: contains a NUL character; leave it out")
    if not is_unicode(text):
        fix = "rename it" if is_path or name in ("model", "lora", "transformer") else "write it in UTF-8"
        raise SettingsError(f"{wrong}: is not UTF-8; {fix}")
    if is_path and not is_unicode(place := os.path.realpath(os.path.expanduser(text))):
        raise SettingsError(f"{wrong}: leads to {quoted(place)}, which is not UTF-8; rename that folder")
