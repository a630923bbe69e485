"""What the user asked for -> Settings: checked against this machine and the model, every default filled in. Starts
nothing."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec.structs import replace

from fastgen import opt, providers
from fastgen.config import hardware, optimizations
from fastgen.config.hardware import Device
from fastgen.config.model_cards import FAKE, resolve_model
from fastgen.config.profile import choose, from_file
from fastgen.config.prompts import MAX_PIXELS, PROMPT, SYSTEM
from fastgen.config.settings import (
    BACKENDS,
    DTYPE_NAMES,
    FORMATS,
    IMAGE_FIELDS,
    MAX_N,
    MAX_SEED,
    MAX_STEPS,
    OUTPUT_KEYS,
    PARAM_FIELDS,
    PROMPT_FIELDS,
    Endpoint,
    Settings,
    Text,
    check_size,
    number,
    parse_size,
    real,
)
from fastgen.errors import SettingsError
from fastgen.input import paths
from fastgen.types import Task

ONE_PROCESS = 64
"""Requests at once that a single client process is enough for."""


def resolve(
    task: Task,
    input: str | os.PathLike | None = None,
    *,
    out: str | os.PathLike | None = None,
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
    base_url: str | None = None,
    vllm_command: str | None = None,
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
    offload: str = "",
    profile: str | os.PathLike | None = None,
) -> Settings:
    """Check what was asked for against this machine and the model, and fill in every default.

    The names are those of the command line. `input` None means that the rows come from Python.

    Raises:
        SettingsError: something cannot be honoured; the message names the flag and the mend.
    """
    if task not in OUTPUT_KEYS:
        raise SettingsError(f"task {task!r}: one of {', '.join(OUTPUT_KEYS)}")
    backend = backend or BACKENDS[task][0]
    path = paths.rows_file(input, task)
    number("--n", n, 1, MAX_N)
    number("--seed", seed, 0, MAX_SEED)
    format = {"jpg": "jpeg"}.get(format.lower(), format.lower())
    if format not in FORMATS:
        raise SettingsError(f"--format {format}: one of {', '.join(FORMATS)}")
    batch = 0
    if str(batch_size) != "auto":
        if not (str(batch_size).isascii() and str(batch_size).isdigit()):
            raise SettingsError(f"--batch-size {batch_size}: a whole number from 1 to 1024, or auto")
        batch = number("--batch-size", int(batch_size), 1, 1024)
    key = output_key if output_key is not None else OUTPUT_KEYS[task]
    taken = {"id", "fastgen", "mask", *PROMPT_FIELDS, *PARAM_FIELDS, *(IMAGE_FIELDS if task != "t2i" else ())}
    if not key or key in taken:
        raise SettingsError(
            f"--output-key {key!r}: that field is read or written by fastgen itself; choose another name"
        )
    root, root_note = paths.image_root(image_root, path, task)
    api_options = {"quality": quality, "background": background, "aspect_ratio": aspect_ratio, "resolution": resolution}
    faster = {"attention": attention, "compile": compile, "quantize": quantize, "cache": cache, "offload": offload}
    given = from_file(profile) if profile else None
    text = Text(
        prompt,
        system,
        number("--max-tokens", max_tokens, 1, 1_000_000),
        real("--temperature", temperature),
        MAX_PIXELS if max_pixels is None else number("--max-pixels", max_pixels, 1024, 2**40),
        paths.schema(schema),
    )
    if max_inflight is not None:
        number("--max-inflight", max_inflight, 1, 4096)
    if timeout is not None and not 0 < timeout <= 86_400:
        raise SettingsError(f"--timeout {timeout}: seconds, from above 0 to 86400")

    def link(backend: str, model: str, base_url: str | None, first: bool) -> Settings:
        """The settings of one backend of the chain."""
        if backend not in (*BACKENDS[task], "fake"):
            flag = "--backend" if first else "--fallback"
            raise SettingsError(f"{flag} {backend}: for {task} one of {', '.join(BACKENDS[task])}")
        notes: list[str] = []
        endpoint = Endpoint()
        where = "cpu" if backend in ("openai", "gemini") or base_url else gpus
        devices = hardware.resolve_devices(where, hardware.find_gpus() if where != "cpu" else [])
        on_gpu = devices[0].kind == "cuda"
        if backend in ("vllm", "openai", "gemini"):
            card, endpoint, notes = providers.connect(backend, task, model, on_gpu, base_url, vllm_command)
            workers = providers.CLIENT_PROCESSES.get(backend, 1) if endpoint.base_url else 0
            if max_inflight and max_inflight <= ONE_PROCESS:  # a second one would only cost its start
                workers = min(workers, 1)
            if workers or backend != "vllm":
                devices = tuple(
                    Device(f"{backend}:{i}" if workers > 1 else backend, "endpoint", 1) for i in range(max(1, workers))
                )
        else:
            card, notes = (FAKE, []) if backend == "fake" else resolve_model(model, task, on_gpu)
        defaults = card.defaults
        profile = given or choose(card.family, card.name, devices[0])
        kind = DTYPE_NAMES.get("bf16" if on_gpu else "fp32") if dtype == "auto" else DTYPE_NAMES.get(dtype.lower(), "")
        if not kind:
            raise SettingsError(f"--dtype: one of auto, {', '.join(DTYPE_NAMES)}")
        if kind == "float16" and not on_gpu and backend == "local":
            notes.append("--dtype float16 on a CPU runs 5 to 7 times slower than bfloat16 or float32")
        wanted_size = None
        if size is not None:
            try:
                wanted_size = parse_size(size)
                if backend in ("local", "fake"):
                    check_size(*wanted_size, card)
            except ValueError as error:
                raise SettingsError(f"--size {size}: {error}") from None
        elif task == "t2i" and backend in ("local", "fake"):
            wanted_size = (defaults.width, defaults.height)
        longest = defaults.max_sequence_length if max_sequence_length is None else max_sequence_length
        if endpoint != Endpoint():
            # A profile speaks of one server, and each GPU has one.
            usual = profile.serve.max_inflight * len(devices) if endpoint.command else providers.MAX_INFLIGHT[backend]
            endpoint = replace(
                endpoint,
                max_inflight=max_inflight or usual or providers.MAX_INFLIGHT[backend],
                rpm=number("--rpm", rpm, 0, 10_000_000),
                timeout_s=float(timeout or providers.TIMEOUT_S[task]),
            )
        chosen, words = optimizations.Speed(), {name: value for name, value in api_options.items() if value}
        if backend == "local":
            own = words.pop("quality") if words.get("quality") in optimizations.QUALITIES else ""
            chosen = optimizations.resolve(own, profile.opt, f"profile '{profile.name}'", faster)
            if reason := opt.refuse(chosen, devices[0].gpu):
                raise SettingsError(reason)
            notes += chosen.notes(on_gpu)
        settings = Settings(
            task=task,
            input=str(path.resolve()) if path else "",
            out=str(Path(out if out is not None else Path("fastgen-runs") / task).expanduser().absolute()),
            backend=backend,
            model=card,
            devices=devices,
            profile=profile,
            size=wanted_size,
            steps=number("--steps", defaults.steps if steps is None else steps, 1, MAX_STEPS),
            guidance=real("--guidance", defaults.guidance if guidance is None else guidance),
            n=n,
            seed=seed,
            dtype=kind,
            batch_size=batch,
            format=format,
            output_key=key,
            image_root=str(root),
            loras=tuple(paths.lora(text) for text in lora),
            transformer=paths.transformer(transformer),
            max_sequence_length=number("--max-sequence-length", longest, 1, 512),
            speed=chosen,
            limit=0 if limit is None else number("--limit", limit, 1, 2**62),
            fresh=fresh,
            retry_failed=retry_failed,
            api_options=words,
            text=text if max_pixels is not None else replace(text, max_pixels=profile.serve.max_pixels or MAX_PIXELS),
            endpoint=endpoint,
            fallbacks=(),
            fallback_on_refusal=fallback_on_refusal,
            max_cost=float(max_cost),
            notes=tuple(notes),
        )
        if reason := providers.refuse_flags(settings):
            if first and not fallback:
                raise SettingsError(reason)
            settings = replace(settings, notes=(*settings.notes, f"{backend}: {reason}"))
        return settings

    settings = link(backend, model, base_url, first=True)
    rest = [link(*named, first=False) for named in _route(fallback)]
    names = [s.backend for s in (settings, *rest)]
    if len(set(names)) < len(names):
        raise SettingsError(f"--fallback {fallback}: {', '.join(names)} names one backend twice")
    if all(one.backend != "local" for one in (settings, *rest)):
        for name, value in {**faster, "profile": profile}.items():
            if value not in ("", None):
                raise SettingsError(f"--{name}: only the engine on this machine takes it (--backend local)")
    if not 0 <= max_cost < 1e9:
        raise SettingsError(f"--max-cost {max_cost}: USD, from 0 (no limit) up")
    notes = [*settings.notes, *(note for s in rest for note in s.notes), *root_note]
    for one in (settings, *rest):
        if max_cost and one.backend in ("openai", "gemini") and providers.price(one) is None:
            raise SettingsError(
                f"--max-cost: the price of {one.backend}'s {one.model.name} is not known here; put it into a file of "
                f"services (see docs/apis.md) and name that in {providers.OVERRIDE}"
            )
    return replace(settings, fallbacks=tuple(rest), notes=tuple(notes))


def _route(text: str) -> list[tuple[str, str, str | None]]:
    """--fallback openai,gemini:MODEL,openai@URL -> (backend, model, base URL or None) each."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, url = part.partition("@")
        backend, _, model = name.partition(":")
        found.append((backend, model or "auto", url or None))
    return found
