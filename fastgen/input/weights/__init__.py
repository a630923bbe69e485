"""The user's own weight files: every tensor in them is accounted for before an engine starts. Imports no torch.

safetensors   the header of a file: what is in it, and whether it is one
flux          the layers of a FLUX.1 model, and their names in other programs
lora          the tensors of a LoRA -> changes of layers
transformer   the tensors of a transformer in one file -> the model's parameters
"""

from __future__ import annotations

import json
from pathlib import Path

from fastgen.errors import ModelError
from fastgen.input.weights import flux, lora, transformer
from fastgen.input.weights.safetensors import BadFile, read_header


def check(folder: str, loras: tuple[tuple[str, float], ...], transformer_file: str) -> list[str]:
    """Notes for the user about files that will be used with the model in a folder.

    Args:
        folder: of the model, in diffusers' format.
        loras: (path, scale) each.
        transformer_file: "" for none.

    Raises:
        ModelError: a file is not what it should be, or has tensors that do not belong to this model.
    """
    if not loras and not transformer_file:
        return []
    model = read_model(Path(folder))
    notes = []
    for flag, path in (("--transformer", transformer_file), *(("--lora", path) for path, _ in loras)):
        if not path:
            continue
        try:
            plan = (lora if flag == "--lora" else transformer).plan(read_header(Path(path)), model)
        except BadFile as error:
            raise ModelError(f"{flag} {path}: {error}") from None
        notes += [f"{flag} {path}: {note}" for note in plan.notes]
    return notes


def read_model(folder: Path) -> flux.Model:
    """The layers of the model in a folder, from its configs."""
    parts = ("transformer", "text_encoder", "text_encoder_2")
    return flux.Model(*(json.loads((folder / part / "config.json").read_text("utf-8")) for part in parts))
