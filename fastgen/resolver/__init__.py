"""What the user asked for -> Settings: checked against this machine and the model, with every default filled in. Starts
nothing.

flags     what was given, by the names of the command line
parts     the parts that apply to every backend of a run: rows, texts, the run itself
backend   one backend: its model, devices, profile, endpoint and optimizations
"""

from __future__ import annotations

import inspect
import os
from typing import Any, NamedTuple

from msgspec.structs import replace

from fastgen.config import backends
from fastgen.config.profile import Profile, from_file
from fastgen.config.prompts import PROMPT, SYSTEM
from fastgen.config.settings import OUTPUT_KEYS, Rows, RunOptions, Settings
from fastgen.errors import SettingsError, quoted
from fastgen.output import other_settings
from fastgen.providers import capabilities, catalog, pricing
from fastgen.providers.endpoints import path_of
from fastgen.resolver import flags as given
from fastgen.resolver import parts, placing, sharding
from fastgen.resolver.backend import resolve_backend
from fastgen.resolver.flags import Flags
from fastgen.types import Task


def resolve(
    task: Task,
    input: str | os.PathLike | None = None,
    *,
    out: str | os.PathLike | None = None,
    state: str | os.PathLike | None = None,
    model: str = "auto",
    backend: str = "",
    gpus: str = "",
    size: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    n: int = 1,
    seed: int = 0,
    dtype: str = "auto",
    batch_size: int | str = "auto",
    format: str = "png",
    output_key: str | None = None,
    image_root: str | os.PathLike | None = None,
    lora: tuple[str, ...] | list[str] = (),
    transformer: str | None = None,
    max_sequence_length: int | None = None,
    limit: int | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    quality: str = "",
    background: str = "",
    aspect_ratio: str = "",
    resolution: str = "",
    prompt: str = PROMPT,
    system: str = SYSTEM,
    max_tokens: int = 512,
    temperature: float = 0.0,
    max_pixels: int | None = None,
    schema: str | os.PathLike | dict | None = None,
    thinking: str = "",
    accept_refusals: bool = False,
    extra_body: str | dict | None = None,
    allow_image_hosts: str = "",
    base_url: str | list[str] | tuple[str, ...] | None = None,
    vllm_command: str | None = None,
    batch_api: bool = False,
    batch_rows: int | None = None,
    max_inflight: int | None = None,
    rpm: int = 0,
    timeout: float | None = None,
    fallback: str = "",
    fallback_on_refusal: bool = False,
    max_cost: float = 0.0,
    attention: str = "",
    compile: bool | None = None,
    quantize: str = "",
    cache: str = "",
    progressive: str = "",
    offload: str = "",
    cuda_graphs: bool | None = None,
    profile: str | os.PathLike | None = None,
    gpus_per_replica: int | None = None,
    parallel: str = "",
    prompt_key: str = "",
    image_key: str = "",
    mask_key: str = "",
    id_key: str = "",
    strict: bool = False,
    name: str = "",
    table: str = "jsonl",
    webdataset: bool = False,
    engine: str = "",
    ray_address: str | None = None,
    min_workers: int | None = None,
    max_workers: int | None = None,
    shard: str = "",
    only_rows: str | os.PathLike | None = None,
) -> Settings:
    """Check what was asked for against this machine and the model, and fill in every default.

    The names are those of the command line; None means "not given". Without `input` the rows come from Python. Without
    `out`, a run goes to a folder of its own (`fastgen-runs/t2i-2`) if the usual one has results of other settings.

    >>> import fastgen
    >>> settings = fastgen.resolve("t2i", out="run", model="tiny", gpus="cpu", size="128x128", steps=4)
    >>> settings.model.name, settings.image.size, settings.image.steps
    ('tiny', (128, 128), 4)

    Raises:
        SettingsError: something cannot be honoured; the message names the flag and the fix.
    """
    return _route(given.read(locals(), _DEFAULTS))


_DEFAULTS = {name: argument.default for name, argument in inspect.signature(resolve).parameters.items()}


_NEVER_EMPTY = (
    "model",
    "base_url",
    "input",
    "out",
    "state",
    "image_root",
    "transformer",
    "profile",
    "ray_address",
    "only_rows",
)
"""Flags that are refused if they are "", as from a variable of the shell that is not set."""


def check(task: Task, **more: Any) -> None:
    """Check what does not depend on the machine, as `resolve` does, for a run elsewhere: no device, model or key has to
    be here. Raises SettingsError."""
    asked = _asked(given.read({**_DEFAULTS, "task": task, **more}, _DEFAULTS))
    for flag, _, _, base_url in asked.backends:
        for url in (base_url or "").split():
            path_of(url, "--base-url" if flag == "--backend" else flag)


class _Asked(NamedTuple):
    """What was asked for, as far as it can be checked on any machine."""

    backends: list[tuple[str, str, str, str | None]]
    """Flag, name, model and base URL of each."""
    specs: list[backends.BackendSpec]
    run: RunOptions
    rows: Rows
    notes: list[str]
    profile: Profile | None


def _asked(flags: Flags) -> _Asked:
    """Raises SettingsError."""
    if not isinstance(flags.task, str) or flags.task not in OUTPUT_KEYS:
        raise SettingsError(f"task {quoted(flags.task)}: one of {', '.join(OUTPUT_KEYS)}")
    for name in _NEVER_EMPTY:
        if isinstance(value := getattr(flags, name), str) and not value.strip():
            raise SettingsError(f"{given.called(name)}: is empty; give a value, or leave it out")
    first = flags.backend or backends.names(flags.task)[0]
    asked = [("--backend", first, flags.model, flags.base_url)]
    asked += [("--fallback", *named) for named in _fallbacks(flags.fallback)]
    specs = [_spec(flag, name, flags.task) for flag, name, _, _ in asked]
    if len({spec.name for spec in specs}) < len(specs):
        raise SettingsError(f"--fallback {flags.fallback}: {', '.join(map(str, specs))} has one backend twice")
    if not any(spec.optimizes for spec in specs):
        _refuse_optimizations(flags)
    if flags.gpus_per_replica and not any(
        sharding.can_split(spec, base_url) for spec, (_, _, _, base_url) in zip(specs, asked, strict=True)
    ):
        raise SettingsError(f"--gpus-per-replica {flags.gpus_per_replica}: {sharding.only(flags.task)}")
    placing.check(flags, specs)
    parts.check_batch_api(flags, specs)
    run = parts.run_options(flags)
    rows, notes = parts.rows(flags, run.input)
    profile = from_file(flags.profile) if flags.profile else None
    return _Asked(asked, specs, run, rows, notes, profile)


def _route(flags: Flags) -> Settings:
    """The requested backend, with its fallbacks."""
    asked, specs, run, rows, notes, profile = _asked(flags)
    route = []
    for spec, (flag, _, model, base_url) in zip(specs, asked, strict=True):
        try:
            settings = resolve_backend(flags, spec, model, base_url and base_url.strip(), rows, run, profile)
        except SettingsError as error:
            raise type(error)(f"{flag} {spec}: {error}" if flag == "--fallback" else str(error)) from None
        if reason := capabilities.refuse_flags(settings):
            if not flags.fallback:
                raise SettingsError(reason)
            settings = replace(settings, run=replace(settings.run, notes=(*settings.run.notes, f"{spec}: {reason}")))
        if run.max_cost:
            _check_price(settings)
        route.append(settings)
    said = tuple(note for settings in route for note in settings.run.notes) + tuple(notes)
    said += _without_effect(flags, route)
    main = replace(route[0], run=replace(route[0].run, notes=said), fallbacks=tuple(route[1:]))
    return main if flags.out is not None or flags.fresh or flags.shard else other_settings.in_own_folder(main)


def _spec(flag: str, name: str, task: Task) -> backends.BackendSpec:
    """The backend of that name, if it can do the task. Raises SettingsError."""
    spec = backends.get(name)
    if spec is None or task not in spec.tasks:
        raise SettingsError(f"{flag} {name}: for {task} one of {', '.join(backends.names(task))}")
    return spec


def _fallbacks(text: str) -> list[tuple[str, str, str | None]]:
    """--fallback openai,gemini:MODEL,openai@URL -> (backend, model, base URL or None) each."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, url = part.partition("@")
        backend, _, model = name.partition(":")
        found.append((backend, model or "auto", url or None))
    if text and not found:
        raise SettingsError(f"--fallback {text}: names no backend; write it as openai or openai,gemini")
    return found


_HERE = ("gpus", "dtype", "batch_size", "max_sequence_length")
"""Flags about what is computed on this machine."""


def _without_effect(flags: Flags, route: list[Settings]) -> tuple[str, ...]:
    """A note that names what was given for this machine, where services do all the work."""
    if not all(settings.backend.is_remote for settings in route) or any(map(_starts_server, route)):
        return ()
    named = [given.called(name) for name in _HERE if getattr(flags, name) != _DEFAULTS[name]]
    return (f"{', '.join(named)}: no effect, since nothing is computed on this machine",) if named else ()


def _starts_server(settings: Settings) -> bool:
    return settings.backend.starts_server and not settings.endpoint.base_url


def _refuse_optimizations(flags: Flags) -> None:
    for name, value in {**flags.optimizations, "profile": flags.profile}.items():
        if value not in ("", None):
            raise SettingsError(
                f"--{name.replace('_', '-')}: only the engine on this machine supports it (--backend local)"
            )


def _check_price(settings: Settings) -> None:
    """Raise SettingsError if the price that --max-cost needs is unknown."""
    if settings.backend.provider and pricing.price(settings) is None:
        raise SettingsError(
            f"--max-cost: the price of {settings.backend}'s {settings.model.name} is not known here; add it to a TOML "
            f"file (see docs/apis.md) and name the file in {catalog.OVERRIDE}"
        )
