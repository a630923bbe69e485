"""Flags -> the settings of one backend of a run: its model, devices, profile, endpoint and optimizations. Starts
nothing."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from msgspec.structs import replace

from fastgen.config import downloads, hardware, model_cards, nvidia, optimizations, replicas, torch_build
from fastgen.config.backends import BackendSpec, names
from fastgen.config.checks import DTYPE_NAMES, MAX_STEPS, check_size, number, parse_size, real
from fastgen.config.hardware import Device
from fastgen.config.model_cards import ModelCard
from fastgen.config.profile import Profile, choose
from fastgen.config.settings import Endpoint, Engine, Image, Placement, Rows, RunOptions, Settings
from fastgen.errors import SettingsError
from fastgen.input import paths, repeats, weights
from fastgen.input.readers.rows import estimate
from fastgen.resolver import parts, placing, progressive, sharding
from fastgen.resolver.fitting import fit, settle_compile
from fastgen.resolver.flags import Flags

BUNDLED = Path(__file__).parents[1] / "examples"
"""The rows that ship with the package."""
ONE_PROCESS = 64
"""Up to this many requests in flight, a single client process is enough."""
EACH_OF_FLEET = 64
"""Requests in flight to each server of a fleet. With more, the last rows of the slowest one take longer."""
BATCHES = 16
"""Batches of a Batch API that a run has at the service at once."""
TIMEOUT_S = {"t2i": 600.0, "edit": 600.0, "caption": 120.0}
"""For one request."""


def resolve_backend(
    flags: Flags,
    spec: BackendSpec,
    model: str,
    base_url: str | None,
    rows: Rows,
    run: RunOptions,
    profile: Profile | None,
) -> Settings:
    """The settings of one backend; `run.notes` has the notes for the user.

    Args:
        model, base_url: of this backend; --fallback may set others than the flags.
        profile: the one from --profile; None: the one that fits.

    Raises:
        SettingsError, ModelError: something cannot be honoured.
    """
    _check_requests(flags)
    card, endpoint, devices, notes = _fleet(flags, spec, model, (base_url or "").split(), profile)
    on_gpu = devices[0].kind == "cuda"
    profile = profile or choose(card.family, card.name, devices[0])
    placement = placing.placement(flags, devices, profile)
    chosen, options = optimizations.Optimizations(), flags.options
    if spec.optimizes:
        own = options.pop("quality") if options.get("quality") in optimizations.QUALITIES else ""
        chosen = optimizations.resolve(own, profile.opt, f"profile '{profile.name}'", vars(flags))
        progressive.check(flags.task, card, chosen)
        chosen = sharding.choose(flags, chosen, devices)
        sharding.check_heads(card, chosen, devices)
        notes += chosen.notes(on_gpu) + sharding.notes(chosen, devices)
    engine, image, plan = _engine(flags, card, on_gpu), _image(flags, spec, card, options), None
    if spec.optimizes:
        chosen, plan = fit(flags, card, engine, image, run, profile, devices, chosen)
        notes += [plan.warning] if plan and plan.warning else []
        if run.input:  # rows from Python are counted when they are there (scheduler/run)
            rows_ahead = estimate(run.input, run.limit)
            chosen, note = settle_compile(chosen, rows_ahead, image, card, placement)
            notes += [note] if note else []
        notes += _weights(card, engine)
    if engine.dtype == "float16" and not on_gpu and spec.optimizes:
        notes.append("--dtype float16 on a CPU runs 5 to 7 times slower than bfloat16 or float32")
    if endpoint.command and run.input:
        run, caching = _caching(run, rows)
        notes += caching
    return Settings(
        task=flags.task,
        backend=spec,
        model=card,
        rows=rows,
        image=image,
        text=parts.text(flags, profile.serve.max_pixels),
        engine=engine,
        optimizations=chosen,
        placement=placement,
        endpoint=_endpoint(flags, spec, endpoint, placement),
        run=replace(run, notes=tuple(notes)),
        fit=plan,
    )


def _locate(
    flags: Flags, spec: BackendSpec, model: str, base_url: str | None, profile: Profile | None
) -> tuple[ModelCard, Endpoint, tuple[Device, ...], list[str]]:
    """The model, its endpoint, its devices, and notes for the user."""
    if base_url and not spec.is_remote:
        remote = [name for name in names(flags.task) if name != spec.name]
        raise SettingsError(
            f"--base-url: --backend {spec} runs on this machine and sends no requests; use --backend "
            f"{' or '.join(remote)}, or leave --base-url out"
        )
    needs_devices = not spec.is_remote or (spec.starts_server and not base_url)
    gpus = flags.gpus if needs_devices else "cpu"
    can_split = sharding.can_split(spec, base_url)
    gpus, size = replicas.parse(gpus, (flags.gpus_per_replica or 0) if can_split else 0)
    if size > 1 and not can_split:
        raise SettingsError(f"--gpus {flags.gpus}: {sharding.only(flags.task)}")
    if size > 1 and spec.starts_server and hardware.is_cpu(gpus):
        raise SettingsError(f"--gpus-per-replica {size}: there are no GPUs in this run; leave it out")
    devices = placing.devices(flags, gpus, size, needs_devices)
    module, _, name = spec.locate.partition(":")
    locate = getattr(import_module(module), name)
    on_gpu = devices[0].kind == "cuda"
    if model == "auto" and not on_gpu and needs_devices and (spec.optimizes or spec.starts_server):
        _refuse_tiny(flags)
    if model == "auto" and on_gpu and spec.starts_server and not base_url:
        model = (profile or choose(next(iter(spec.engines)), model, devices[0])).serve.model or model
    if model == "auto" and on_gpu and spec.optimizes:
        least_gib = min((gpu.memory_gib for device in devices for gpu in device.gpus), default=0.0)
        model = model_cards.auto_on_gpu(flags.task, least_gib)
    with downloads.refused(lambda: torch_build.refuse_devices(devices) if spec.optimizes else ""):
        card, endpoint, notes = locate(spec, flags.task, model, on_gpu, base_url, flags.vllm_command)
    if spec.is_remote and not endpoint.command:
        few = flags.max_inflight and flags.max_inflight <= ONE_PROCESS  # a second one would only take time to start
        clients = 1 if few else spec.processes
        devices = tuple(Device(f"{spec}:{i}" if clients > 1 else spec.name, "endpoint", 1) for i in range(clients))
    return card, endpoint or Endpoint(), devices, list(notes)


def _fleet(
    flags: Flags, spec: BackendSpec, model: str, urls: list[str], profile: Profile | None
) -> tuple[ModelCard, Endpoint, tuple[Device, ...], list[str]]:
    """Like `_locate`, for any number of addresses. Several servers have one client for all of them."""
    first, *others = urls or [""]
    card, endpoint, devices, notes = _locate(flags, spec, model, first or None, profile)
    if not others:
        return card, endpoint, devices, notes
    more = [_locate(flags, spec, model, url, profile)[1].base_url for url in others]
    if len({endpoint.base_url, *more}) <= len(more):
        raise SettingsError("--base-url: one address is given twice; leave one of them out")
    return card, replace(endpoint, more_urls=tuple(more)), (Device(spec.name, "endpoint", 1),), notes


def _refuse_tiny(flags: Flags) -> None:
    """Raise SettingsError if the user's own rows would go to the embedded model although this machine has a GPU."""
    is_bundled = flags.input is not None and BUNDLED in Path(flags.input).absolute().parents
    if is_bundled or not (found := nvidia.evidence()):
        return
    why = f"--gpus {flags.gpus}" if flags.gpus else f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
    raise SettingsError(
        f"{why}: --model auto would be 'tiny' here, the embedded model, which is no use for rows of your own, though "
        f"this machine has a GPU ({found}). Leave out what hides it, or name a model (tiny is one)"
    )


def _caching(run: RunOptions, rows: Rows) -> tuple[RunOptions, list[str]]:
    """What our server caches, by the first rows of INPUT, and a note that says so."""
    found = repeats.sample(run.input, rows, run.limit)
    if found is None:
        return run, []
    note = [f"vLLM keeps pictures and prefixes: {found.explain()}"] if found.many else []
    return replace(run, pictures_repeat=found.many, pictures_per_row=found.most), note


def _image(flags: Flags, spec: BackendSpec, card: ModelCard, options: dict[str, str]) -> Image:
    defaults = card.defaults
    size = None
    if flags.size is not None:
        try:
            size = parse_size(flags.size)
            if not spec.is_remote:
                check_size(*size, card)
        except ValueError as error:
            raise SettingsError(f"--size {flags.size}: {error}") from None
    elif flags.task == "t2i" and not spec.is_remote:
        size = (defaults.width, defaults.height)
    format, compression = parts.picture_format(flags)
    if compression and spec.is_remote:
        raise SettingsError(f"--format {flags.format}: {spec} compresses the images itself; use --format {format}")
    return Image(
        size=size,
        steps=number("--steps", defaults.steps if flags.steps is None else flags.steps, 1, MAX_STEPS),
        guidance=real("--guidance", defaults.guidance if flags.guidance is None else flags.guidance),
        n=parts.copies(flags),
        format=format,
        options=options,
        compression=compression,
    )


def _engine(flags: Flags, card: ModelCard, on_gpu: bool) -> Engine:
    dtype = flags.dtype.lower()
    if dtype == "auto":
        dtype = "bf16" if on_gpu else "fp32"
    if dtype not in DTYPE_NAMES:
        raise SettingsError(f"--dtype {flags.dtype}: one of auto, {', '.join(DTYPE_NAMES)}")
    length = flags.max_sequence_length
    return Engine(
        dtype=DTYPE_NAMES[dtype],
        loras=tuple(paths.lora(text) for text in flags.lora),
        transformer=paths.transformer(flags.transformer),
        max_sequence_length=number(
            "--max-sequence-length", card.defaults.max_sequence_length if length is None else length, 1, 512
        ),
    )


def _weights(card: ModelCard, engine: Engine) -> tuple[str, ...]:
    """Notes on the user's own weight files. Raises ModelError if one does not fit."""
    if not card.path:  # only a plan is made; the model is not on this machine
        return ()
    return weights.plan(card.path, engine.transformer, engine.loras).notes


def _endpoint(flags: Flags, spec: BackendSpec, endpoint: Endpoint, placement: Placement) -> Endpoint:
    """The endpoint with the flags for requests."""
    if not spec.is_remote:
        return endpoint
    by_file = flags.batch_api and spec.service is not None and bool(spec.service.batches)
    usual, servers = BATCHES if by_file else spec.max_inflight, 1 + len(endpoint.more_urls)
    if endpoint.command:  # a profile describes one server, and each GPU has one
        usual = placement.profile.serve.max_inflight * len(placement.devices) or usual
    return replace(
        endpoint,
        max_inflight=flags.max_inflight or (min(usual, EACH_OF_FLEET) * servers if servers > 1 else usual),
        rpm=flags.rpm,
        batch_api=by_file,
        stream=endpoint.stream and not by_file,
        timeout_s=float(flags.timeout or TIMEOUT_S[flags.task]),
        image_hosts=parts.image_hosts(flags),
    )


def _check_requests(flags: Flags) -> None:
    """Raise SettingsError if a flag for requests has no possible value, whether or not a backend sends any."""
    number("--rpm", flags.rpm, 0, 10_000_000)
    if flags.max_inflight is not None:
        number("--max-inflight", flags.max_inflight, 1, 4096)
    if flags.timeout is not None and not 0 < flags.timeout <= 86_400:
        raise SettingsError(f"--timeout {flags.timeout}: must be a number of seconds above 0, up to 86400")
