"""Offline, high-throughput image generation, image editing and captioning on your own GPUs.

    import fastgen

    settings = fastgen.resolve("t2i", "prompts.jsonl", out="run")
    for result in fastgen.generate(settings):
        print(result.row, result.error or result.image_paths)

The public names are imported when first used, so that `import fastgen` costs nothing. `fastgen.ray` is for Ray Data.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "generate": "fastgen.api",
    "generate_async": "fastgen.api",
    "explain": "fastgen.api",
    "Session": "fastgen.api",
    "resolve": "fastgen.resolver",
    "Settings": "fastgen.config.settings",
    "Request": "fastgen.types",
    "ImageParams": "fastgen.types",
    "TextParams": "fastgen.types",
    "Done": "fastgen.types",
    "Failed": "fastgen.types",
    "FastgenError": "fastgen.errors",
    "SettingsError": "fastgen.errors",
    "ModelError": "fastgen.errors",
    "RunFolderError": "fastgen.errors",
    "InputError": "fastgen.errors",
    "EngineError": "fastgen.errors",
    "BudgetError": "fastgen.errors",
    "DiskError": "fastgen.errors",
    "StorageError": "fastgen.errors",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "ray":
        return import_module("fastgen.api.ray_data")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fastgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
