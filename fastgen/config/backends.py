"""The backends by name, as data: what each can do, what it needs, and where its code is. Imports and opens nothing.

The `Settings` of a run contain the spec itself, so a process that runs a backend does not need this table.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fastgen.types import Task

OPTIONS = ("quality", "background", "aspect_ratio", "resolution")
"""Options that only services understand. For `quality` the local engine has its own values,
`optimizations.QUALITIES`."""


class Service(msgspec.Struct, frozen=True):
    """How to reach a vendor's service, and which options its request format has."""

    title: str
    """Its name in messages."""
    keys: tuple[str, ...]
    """Environment variables that may hold the key; the first that is set counts."""
    base_url_variable: str
    """Environment variable that may hold the base URL."""
    sdk: str
    """The module of the vendor's SDK, which must be installed; the package has its name, with a dash for the dot."""
    base_url: str = ""
    """The vendor's own address; "" where the SDK knows it."""
    path: str = ""
    """Added to a base URL that has no path."""
    options: tuple[str, ...] = ()
    """The `OPTIONS` that the format has."""
    takes_sizes: bool = True
    """Whether images are requested by size; otherwise by aspect ratio and resolution."""
    makes_variations: bool = False
    """Whether it has an endpoint that makes variations of an image."""
    batches: str = ""
    """ "module:class" of its Batch API (`backends.remote.batch_api.service.Service`), "" if it has none."""
    picks_format: bool = False
    """Whether the service itself chooses the file format of images."""


class BackendSpec(msgspec.Struct, frozen=True):
    """What is known about a backend before it is opened."""

    name: str
    """Its name for --backend, in results and in run.json."""
    tasks: tuple[Task, ...]
    engines: dict[str, str]
    """Model family -> "module:class" that runs it."""
    locate: str
    """ "module:function" that finds the model: (spec, task, model, on_gpu, base_url, command) -> (ModelCard, Endpoint
    or None, notes)."""
    is_remote: bool = False
    """Whether it is an endpoint: one HTTP request per row, many at once."""
    starts_server: bool = False
    """Whether it starts a server of its own on this machine's devices if no base URL is given."""
    provider: str = ""
    """Its section in the catalog of services: models, limits, prices; "" for none."""
    service: Service | None = None
    max_inflight: int = 0
    """Default for the maximum number of requests in flight."""
    processes: int = 1
    """Number of client processes per endpoint."""
    optimizes: bool = False
    """Whether it supports the user's own weights and optimizations: --lora, --transformer, --quality and its flags."""
    hidden: bool = False
    """Whether messages leave it out when they list the choices."""

    def __str__(self) -> str:
        return self.name


PICTURES: tuple[Task, ...] = ("t2i", "edit")
ALL: tuple[Task, ...] = ("t2i", "edit", "caption")
_SPECS = (
    BackendSpec(
        "local",
        PICTURES,
        dict.fromkeys(
            ("flux", "flux2", "flux2_kept", "flux2_dev", "chroma", "z_image", "qwen_image", "qwen_image_edit"),
            "fastgen.backends.diffusion.backend:DiffusionBackend",
        ),
        "fastgen.config.model_cards:locate",
        optimizes=True,
    ),
    BackendSpec(
        "vllm",
        ("caption",),
        {"vlm": "fastgen.backends.remote.vllm:VllmBackend"},
        "fastgen.providers.vllm:locate",
        is_remote=True,
        starts_server=True,
        max_inflight=256,
        processes=2,
    ),
    BackendSpec(
        "openai",
        ALL,
        {"api": "fastgen.backends.remote.openai_api:OpenAIBackend"},
        "fastgen.providers.endpoints:locate",
        is_remote=True,
        provider="openai",
        service=Service(
            "OpenAI",
            ("OPENAI_API_KEY",),
            "OPENAI_BASE_URL",
            "openai",
            path="/v1",
            options=("quality", "background"),
            makes_variations=True,
            batches="fastgen.backends.remote.batch_api.openai:OpenAIBatches",
        ),
        max_inflight=64,
    ),
    BackendSpec(
        "gemini",
        ALL,
        {"api": "fastgen.backends.remote.gemini_api:GeminiBackend"},
        "fastgen.providers.endpoints:locate",
        is_remote=True,
        provider="gemini",
        service=Service(
            "Gemini",
            ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            "GOOGLE_GEMINI_BASE_URL",
            "google.genai",
            options=("aspect_ratio", "resolution"),
            takes_sizes=False,
            batches="fastgen.backends.remote.batch_api.gemini:GeminiBatches",
            picks_format=True,
        ),
        max_inflight=64,
    ),
    BackendSpec(
        "fake",
        ALL,
        {"fake": "fastgen.backends.fake:FakeBackend"},
        "fastgen.config.model_cards:locate_fake",
        hidden=True,
    ),
)
_by_name = {spec.name: spec for spec in _SPECS}
_adopted = False


def register(spec: BackendSpec) -> None:
    """Add a backend. Raises ValueError if another backend has the name."""
    if _by_name.setdefault(spec.name, spec) != spec:
        raise ValueError(f"a backend named {spec.name} is already registered")


def adopt(specs: Iterable[BackendSpec]) -> None:
    """In a process that runs backends for another one: take over those that it needs. It may know more of them."""
    global _adopted
    _adopted = True
    for spec in specs:
        register(spec)


def all_known() -> bool:
    """Whether a name that is not registered here is registered nowhere."""
    return not _adopted


def get(name: str) -> BackendSpec | None:
    """The backend of that name; None if there is none."""
    return _by_name.get(name)


def names(task: Task) -> list[str]:
    """The backends that a user may choose for a task; the first is the default."""
    return [spec.name for spec in _by_name.values() if task in spec.tasks and not spec.hidden]


def services() -> dict[str, str]:
    """Name and title of every section of the catalog of services."""
    return {spec.provider: spec.service.title for spec in _by_name.values() if spec.provider and spec.service}
