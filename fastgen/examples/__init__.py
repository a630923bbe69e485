"""The rows and images that `fastgen t2i`, `edit` and `caption` use without INPUT, in small and in full size."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def find(task: str, flags: dict) -> Path:
    """The bundled rows for a task: small images for the embedded model, full-size ones for a real model.

    Raises:
        SettingsError: GPUs are evidently meant and cannot be used.
    """
    from fastgen.config import backends, hardware

    spec = backends.get(flags["backend"])
    if flags.get("base_url") or (spec and spec.service):
        return FOLDER / "full" / f"{task}.jsonl"
    small = flags["model"] == "tiny" or bool(spec and spec.hidden)
    if flags["model"] == "auto" and not small:
        small = hardware.is_cpu(flags["gpus"]) or not hardware.find_gpus()
    return FOLDER / ("small" if small else "full") / f"{task}.jsonl"
