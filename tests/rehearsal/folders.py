"""Folders of full-size models: FLUX.1 as `bench.synthetic` makes it; the families after it with their published
configs, a tokenizer of bytes, and weights files that are a header and nothing else."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastgen.bench import synthetic
from tests.backends.diffusion.families import tiny
from tests.config.test_short_names import MODELS, Model, modules

PUBLISHED = {
    "klein": "FLUX.2-klein-4B",
    "flux2-dev": "FLUX.2-dev",
    "chroma": "Chroma1-HD",
    "z-image": "Z-Image-Turbo",
    "qwen-image": "Qwen-Image",
    "qwen-edit": "Qwen-Image-Edit-2511",
}
"""Name here -> the model in docs/models.md."""
KEPT = "klein-kv"
"""It has the sizes of klein 9B."""
LOOKS = (56 * 56, 3584 * 3584)
"""Pixels of an image that Qwen2.5-VL reads, by its published processor."""
SMALL = {
    "flux2": lambda folder: tiny.flux2(folder, distilled=True),
    "flux2_kept": tiny.flux2_kept,
    "flux2_dev": tiny.flux2_dev,
    "chroma": tiny.chroma,
    "z_image": tiny.z_image,
    "qwen_image": tiny.qwen_image,
    "qwen_image_edit": lambda folder: tiny.qwen_edit(folder, 1024**2, looks=LOOKS),
}
"""Family -> what writes a folder of its form."""
WIDTH_BYTES = 2
"""Of a value in bfloat16."""


def make(name: str, folder: Path) -> Path:
    """Write the folder of a model, unless it is there."""
    if folder.exists():
        return folder
    if name in synthetic.NAMES:
        return synthetic.make(name, folder)
    if name == KEPT:
        return write(replace(MODELS["FLUX.2-klein-9B"], family="flux2_kept"), folder)
    return write(MODELS[PUBLISHED[name]], folder)


def write(model: Model, folder: Path) -> Path:
    SMALL[model.family](folder)
    for part, module in modules(model).items():
        for file in (folder / part).iterdir():
            file.unlink()
        whole = "model" if part.startswith("text") else "diffusion_pytorch_model"
        _hollow(folder / part / f"{whole}.safetensors", module)
        if part.startswith("text"):
            if hasattr(module.config, "image_token_id"):
                module.config.image_token_id = tiny.IMAGE_TOKEN  # the tokenizer is a tiny one
            module.config.save_pretrained(folder / part)
        else:
            module.save_config(folder / part)
    (folder / "fastgen.json").write_text(json.dumps({"synthetic": True}), "utf-8")
    return folder


def _hollow(path: Path, module: Any) -> None:
    """A file with the names, types and shapes of a module's tensors; their bytes are a hole."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in module.state_dict().items():
        start, end = end, end + tensor.numel() * WIDTH_BYTES
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    said = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(said)) + said)
        file.truncate(8 + len(said) + end)
