"""The models that are measured, and fastgen's engine on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fastgen.bench import synthetic
from fastgen.config.model_cards import TINY

if TYPE_CHECKING:
    from fastgen.backends.diffusion.backend import DiffusionBackend
    from fastgen.config.settings import Settings
    from fastgen.types import Batch

MIDDLE = {
    "transformer": {"num_layers": 3, "num_single_layers": 6, "num_attention_heads": 12, "joint_attention_dim": 512},
    "text_encoder_2": {"num_layers": 2, "d_model": 512, "num_heads": 8, "d_ff": 1024},
    "text_encoder": {"num_hidden_layers": 2},
    "vae": {"block_out_channels": [64, 64, 128, 128]},
}
"""A FLUX.1 with heads as wide as the real one's, and about 0.7 billion parameters."""
SMALL = {
    "transformer": {
        "num_layers": 1, "num_single_layers": 2, "num_attention_heads": 2, "joint_attention_dim": 64,
        "pooled_projection_dim": 64,
    },
    "text_encoder_2": {"num_layers": 1, "d_model": 64, "num_heads": 2, "d_kv": 32, "d_ff": 128},
    "text_encoder": {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2},
    "vae": {"block_out_channels": [32, 32, 32, 32]},
}  # fmt: skip
"""The same for a CPU: seconds."""


def folder(out: Path, name: str, device: str) -> Path:
    """tiny (the embedded model, trained), middle and middle-kontext (random), flux-dev, flux-kontext (random)."""
    if name == "tiny":
        return TINY
    made = out / "models" / name
    if not (made / "model_index.json").exists():
        kind = "flux-kontext" if "kontext" in name else "flux-dev"
        smaller = None if name in synthetic.NAMES and device != "cpu" else SMALL if device == "cpu" else MIDDLE
        synthetic.make(kind, made, smaller)
    return made


def resolve(out: Path, task: str, model: Path, device: str, rows: int = 1, **flags: Any) -> Settings:
    """Settings as a user gets them for so many rows, with these flags."""
    import fastgen

    run = out / "runs"
    run.mkdir(exist_ok=True)
    return fastgen.resolve(
        task, str(rows_file(out, task, rows, "64x64", 1)), model=str(model), out=str(run), backend="local",
        gpus="cpu" if device == "cpu" else "0", **flags,
    )  # fmt: skip


def rows_file(out: Path, task: str, count: int, size: str, steps: int, first: int = 0) -> Path:
    """Rows of different prompts and one size, numbered from `first`. An edit has an image of that size."""
    path = out / "inputs" / f"{task}-{size}-{first}-{count}-{steps}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = map(int, size.split("x"))
    rows: list[dict[str, Any]] = [
        {"id": f"r{n}", "prompt": f"picture {n} of a lighthouse at dusk, oil on canvas", "size": size, "seed": n,
         "steps": steps}
        for n in range(first, first + count)
    ]  # fmt: skip
    if task == "edit":
        picture = path.parent / f"{size}.png"
        Image.radial_gradient("L").convert("RGB").resize((width, height)).save(picture)
        rows = [row | {"images": [picture.name]} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def batch(settings: Settings, rows: Path) -> Batch:
    """The rows of a file, which are of one size, as one batch."""
    from fastgen.input.readers.rows import read
    from fastgen.input.requests import Intake
    from fastgen.types import Batch, Bucket, Request

    intake = Intake(settings)
    made = [intake.read(row, intake.identify(row)) for row in read(rows)]
    requests = tuple(one for one in made if isinstance(one, Request))
    if len(requests) < len(made):
        raise ValueError(f"rows that cannot be run: {made}")
    return Batch(Bucket.of(requests[0]), requests)


@contextmanager
def engine(settings: Settings) -> Iterator[tuple[DiffusionBackend, dict[str, Any]]]:
    """fastgen's own engine in this process, open, and its facts."""
    from fastgen.backends.diffusion.backend import DiffusionBackend
    from fastgen.output import artifacts

    out = Path(settings.run.out)
    artifacts.clear_partial(out)
    artifacts.prepare(out)
    backend = DiffusionBackend(settings, settings.placement.devices[0])
    facts = backend.open()
    try:
        yield backend, facts
    finally:
        backend.close()
