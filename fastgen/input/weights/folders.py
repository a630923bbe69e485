"""The parts of a model folder: the shapes of their parameters, from the headers of their files."""

from __future__ import annotations

import json
from pathlib import Path

from fastgen.errors import ModelError
from fastgen.input.weights.layers import Shape
from fastgen.input.weights.safetensors import BadFile, read_header

WHOLE = ("diffusion_pytorch_model.safetensors", "model.safetensors")


def read_shapes(part: Path) -> dict[str, Shape]:
    """Name of a parameter -> its shape. Raises ModelError: the part is not in .safetensors files."""
    found: dict[str, Shape] = {}
    files = _files(part)
    if not files:
        raise ModelError(f"--model: no .safetensors files in {part}, so its weights cannot be read; convert them")
    for file in files:
        try:
            found |= {name: tensor.shape for name, tensor in read_header(file).tensors.items()}
        except BadFile as error:
            raise ModelError(f"--model: {file} {error}") from None
    return found


def _files(part: Path) -> list[Path]:
    for name in WHOLE:
        if (index := part / f"{name}.index.json").is_file():
            files = json.loads(index.read_text("utf-8"))["weight_map"].values()
            return [part / file for file in sorted(set(files))]
        if (part / name).is_file():
            return [part / name]
    return sorted(part.glob("*.safetensors"))
