"""Flags -> the settings of one backend of a run: its model, devices, profile, endpoint and optimizations. Starts
nothing."""

from __future__ import annotations

from importlib import import_module

from msgspec.structs import replace

from fastgen.config import hardware, optimizations
from fastgen.config.backends import BackendSpec, names
from fastgen.config.checks import DTYPE_NAMES, MAX_STEPS, check_size, number, parse_size, real
from fastgen.config.hardware import Device
from fastgen.config.model_cards import ModelCard
from fastgen.config.profile import Profile, choose
from fastgen.config.settings import Endpoint, Engine, Image, Placement, Rows, RunOptions, Settings
from fastgen.errors import SettingsError
from fastgen.input import paths, weights
from fastgen.resolver import parts
from fastgen.resolver.fitting import fit
from fastgen.resolver.flags import Flags

ONE_PROCESS = 64
"""Up to this many requests in flight, a single client process is enough."""
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
    card, endpoint, devices, notes = _locate(flags, spec, model, base_url, profile)
    on_gpu = devices[0].kind == "cuda"
    profile = profile or choose(card.family, card.name, devices[0])
    placement = Placement(devices, profile)
    chosen, options = optimizations.Optimizations(), flags.options
    if spec.optimizes:
        own = options.pop("quality") if options.get("quality") in optimizations.QUALITIES else ""
        chosen = optimizations.resolve(own, profile.opt, f"profile '{profile.name}'", vars(flags))
        notes += chosen.notes(on_gpu)
    engine, image, plan = _engine(flags, card, on_gpu), _image(flags, spec, card, options), None
    if spec.optimizes:
        chosen, plan = fit(flags, card, engine, image, run, profile, devices, chosen)
        notes += [plan.warning] if plan and plan.warning else []
        notes += weights.plan(card.path, engine.transformer, engine.loras).notes
    if engine.dtype == "float16" and not on_gpu and spec.optimizes:
        notes.append("--dtype float16 on a CPU runs 5 to 7 times slower than bfloat16 or float32")
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
    devices = hardware.resolve_devices(gpus, hardware.find_gpus() if gpus != "cpu" else [])
    module, _, name = spec.locate.partition(":")
    locate = getattr(import_module(module), name)
    on_gpu = devices[0].kind == "cuda"
    if model == "auto" and on_gpu and spec.starts_server and not base_url:
        model = (profile or choose(next(iter(spec.engines)), model, devices[0])).serve.model or model
    card, endpoint, notes = locate(spec, flags.task, model, on_gpu, base_url, flags.vllm_command)
    if spec.is_remote and not endpoint.command:
        few = flags.max_inflight and flags.max_inflight <= ONE_PROCESS  # a second one would only take time to start
        clients = 1 if few else spec.processes
        devices = tuple(Device(f"{spec}:{i}" if clients > 1 else spec.name, "endpoint", 1) for i in range(clients))
    return card, endpoint or Endpoint(), devices, list(notes)


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
    return Image(
        size=size,
        steps=number("--steps", defaults.steps if flags.steps is None else flags.steps, 1, MAX_STEPS),
        guidance=real("--guidance", defaults.guidance if flags.guidance is None else flags.guidance),
        n=parts.copies(flags),
        format=parts.picture_format(flags),
        options=options,
    )


def _engine(flags: Flags, card: ModelCard, on_gpu: bool) -> Engine:
    dtype = flags.dtype.lower()
    if dtype == "auto":
        dtype = "bf16" if on_gpu else "fp32"
    if dtype not in DTYPE_NAMES:
        raise SettingsError(f"--dtype: one of auto, {', '.join(DTYPE_NAMES)}")
    length = flags.max_sequence_length
    return Engine(
        dtype=DTYPE_NAMES[dtype],
        loras=tuple(paths.lora(text) for text in flags.lora),
        transformer=paths.transformer(flags.transformer),
        max_sequence_length=number(
            "--max-sequence-length", card.defaults.max_sequence_length if length is None else length, 1, 512
        ),
    )


def _endpoint(flags: Flags, spec: BackendSpec, endpoint: Endpoint, placement: Placement) -> Endpoint:
    """The endpoint with the flags for requests."""
    _check_requests(flags)
    if not spec.is_remote:
        return endpoint
    usual = spec.max_inflight
    if endpoint.command:  # a profile describes one server, and each GPU has one
        usual = placement.profile.serve.max_inflight * len(placement.devices) or usual
    return replace(
        endpoint,
        max_inflight=flags.max_inflight or usual,
        rpm=number("--rpm", flags.rpm, 0, 10_000_000),
        timeout_s=float(flags.timeout or TIMEOUT_S[flags.task]),
    )


def _check_requests(flags: Flags) -> None:
    if flags.max_inflight is not None:
        number("--max-inflight", flags.max_inflight, 1, 4096)
    if flags.timeout is not None and not 0 < flags.timeout <= 86_400:
        raise SettingsError(f"--timeout {flags.timeout}: must be a number of seconds above 0, up to 86400")
