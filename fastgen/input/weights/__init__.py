"""The user's own weight files: every tensor in them is accounted for before an engine starts. Imports no torch.

safetensors   the header of a file: what is in it, and whether it is one
gguf_file     the same for GGUF
layers        the layers of a model, by any name
flux          those of a FLUX.1 model, and their names in other programs
others        those of the other families
folders       the shapes of a model folder's own weights
lora          the tensors of a LoRA -> changes of layers
alphas        what is said of them outside of the tensors
transformer   the tensors of a transformer in one file -> the model's parameters
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fastgen.config.families import PIPELINES
from fastgen.errors import ModelError
from fastgen.input.weights import alphas, flux, folders, gguf_file, lora, others, transformer
from fastgen.input.weights.layers import Model
from fastgen.input.weights.safetensors import BadFile, read_header

PARTS = ("transformer", "text_encoder", "text_encoder_2")
"""Of FLUX.1."""
Plan = TypeVar("Plan")


@dataclass(frozen=True)
class Plans:
    """What is in the files, and where it belongs."""

    transformer: transformer.Plan | None
    loras: tuple[lora.Plan, ...]
    notes: tuple[str, ...]
    """What the user should be told."""


def plan(folder: str, transformer_file: str, loras: tuple[tuple[str, float], ...]) -> Plans:
    """Read the headers of files that are to go with the model in a folder.

    Args:
        folder: of the model, in diffusers' format.
        transformer_file: "" for none.
        loras: (path, scale) each.

    Raises:
        ModelError: a file is not what it should be, or has tensors that do not belong to this model.
    """
    if not loras and not transformer_file:
        return Plans(None, (), ())
    model = read_model(Path(folder))
    main = _plan("--transformer", transformer_file, _transformer, model) if transformer_file else None
    merged = tuple(_plan("--lora", path, _lora, model) for path, _ in loras)
    notes = [f"--transformer {transformer_file}: {note}" for note in (main.notes if main else ())]
    for (path, _), found in zip(loras, merged, strict=True):
        notes += [f"--lora {path}: {note}" for note in found.notes]
    return Plans(main, merged, tuple(notes))


def plan_lora(path: str, model: Model) -> lora.Plan:
    """What a LoRA that a row names changes. Raises ModelError."""
    try:
        return _lora(Path(path), model)
    except BadFile as error:
        raise ModelError(f"{path}: {error}") from None


def read_model(folder: Path) -> Model:
    """The layers of the model in a folder. Raises ModelError."""

    def config(part: str) -> dict:
        found: dict = json.loads((folder / part / "config.json").read_text("utf-8"))
        return found

    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    family = PIPELINES[index["_class_name"]].family
    if family == "flux":
        return flux.Model(*map(config, PARTS))
    if family not in others.FAMILIES:
        raise ModelError(
            f"--lora and --transformer: not for models of the family {family}; leave them out, and `lora` in rows too"
        )
    return others.of(family, folders.read_shapes(folder / "transformer"), config("transformer"))


def _lora(path: Path, model: Model) -> lora.Plan:
    return lora.plan(alphas.read(path), model)


def _transformer(path: Path, model: Model) -> transformer.Plan:
    return transformer.plan(gguf_file.read_gguf(path) if gguf_file.is_gguf(path) else read_header(path), model)


def _plan(flag: str, path: str, read: Callable[[Path, Model], Plan], model: Model) -> Plan:
    try:
        return read(Path(path), model)
    except BadFile as error:
        raise ModelError(f"{flag} {path}: {error}") from None
