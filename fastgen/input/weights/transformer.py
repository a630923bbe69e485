"""The tensors of a transformer in one file -> the model's own parameters. Every tensor and every parameter must be
accounted for, or the file is refused.

It reads the names of diffusers and of those who published the models (and ComfyUI), weights in full precision, weights
in 8 bits with a scale for each and those of GGUF, which are multiplied out. Knows shapes, not values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import itemgetter

from fastgen.input.weights.gguf_file import PREFIX
from fastgen.input.weights.layers import Layer, Model
from fastgen.input.weights.safetensors import FLOATS, BadFile, Header, Tensor

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.")
OTHER_PARTS = ("vae.", "first_stage_model.", "text_encoders.", "text_encoder.", "text_encoder_2.", "cond_stage_model.")
"""Parts of checkpoints with a whole pipeline; these come from the model folder instead."""
SCALES = ("scale_weight", "weight_scale")
"""The factor for a weight in 8 bits."""
SAYS_NOTHING = ("scale_input", "input_scale", "comfy_quant", "scaled_fp8")
"""For products in 8 bits, which are not used here."""
QUANTIZED = {
    "SVDQuant, for Nunchaku": re.compile(r"\.(wscales|wcscales|wtscale|smooth(_factor|_orig)?|proj_down|proj_up)$"),
    "GPTQ or AWQ": re.compile(r"\.(qweight|qzeros)$"),
    "bitsandbytes": re.compile(r"\.(absmax|quant_map|nested_absmax|quant_state\..*|SCB|CB)$"),
}
"""Formats that are not read -> the ends of names in them."""
EXAMPLES = 3


@dataclass(frozen=True)
class Source:
    """Rows of a tensor in the file."""

    tensor: str
    start: int
    stop: int
    scale: str = ""
    """The tensor by which they are multiplied; "" for none."""


@dataclass(frozen=True)
class Plan:
    parameters: dict[str, tuple[Source, ...]]
    """Name of a parameter of the model -> where its rows are, from the first to the last."""
    notes: tuple[str, ...] = ()
    """What the user should be told."""


def plan(header: Header, model: Model) -> Plan:
    """Where each parameter of the model's transformer is in a file.

    Raises:
        BadFile: a tensor does not belong to this model or has the wrong shape, or a parameter is missing.
    """
    tensors, others = _own(header)
    problems: dict[str, str] = {}
    scales: dict[str, str] = {}
    found: dict[str, list[tuple[int, Source]]] = {}
    bare = {name for name in tensors if name in model.shapes["transformer"] and not name.endswith((".weight", ".bias"))}
    unused = {name: full for name, (full, _) in tensors.items() if name in model.unused}
    for name, (full, about) in tensors.items():
        path, _, kind = name.rpartition(".")
        layer = model.layer("transformer", path)
        if kind in SAYS_NOTHING or name in unused:
            continue
        if name in model.refused:
            problems[full] = model.refused[name]
        elif name in bare:
            wanted = model.shapes["transformer"][name]
            if about.shape != wanted:
                problems[full] = f"is {_by(about.shape)}; this model has {_by(wanted)}"
            found[name] = [(0, Source(full, 0, about.shape[0]))]
        elif reason := _unfit(layer, kind, about):
            problems[full] = reason
        elif kind in SCALES:
            if f"{path}.weight" not in tensors or path in scales:
                problems[full] = "belongs to no weight" if path not in scales else "is a second scale"
            scales[path] = full
    for name, (full, _) in tensors.items():
        path, _, kind = name.rpartition(".")
        layer = model.layer("transformer", path)
        if layer is None or full in problems or kind in (*SCALES, *SAYS_NOTHING):
            continue
        kind, scale, start = {"scale": "weight"}.get(kind, kind), scales.get(path, "") if kind == "weight" else "", 0
        for piece in layer.pieces:
            stop = start + piece.stop - piece.start
            found.setdefault(f"{piece.path}.{kind}", []).append((piece.start, Source(full, start, stop, scale)))
            start = stop
    if not problems:
        problems = {name: "is missing" for name in model.shapes["transformer"] if name not in found}
        problems |= {
            name: "is there twice" for name, rows in found.items() if len({start for start, _ in rows}) < len(rows)
        }
    if problems:
        raise BadFile(_explain(problems, header))
    in_order = {name: tuple(source for _, source in sorted(rows, key=itemgetter(0))) for name, rows in found.items()}
    notes = [f"{full} is left out: {model.unused[name]}" for name, full in unused.items()]
    return Plan(in_order, (*notes, *_notes(others)))


def _own(header: Header) -> tuple[dict[str, tuple[str, Tensor]], list[str]]:
    """The transformer's tensors by their names without prefix, with the names in the file; and the names of others."""
    for kind, ends in QUANTIZED.items():
        if names := [name for name in header.tensors if ends.search(name)]:
            raise BadFile(
                f"is quantized in a format that fastgen does not read: {kind} ({len(names)} tensors such as "
                f"{names[0]}). Use weights of full precision and --quantize (4bit and nvfp4 are about as small)"
            )
    others = [name for name in header.tensors if name.startswith(OTHER_PARTS)]
    rest = [name for name in header.tensors if not name.startswith(OTHER_PARTS)]
    prefix = next((one for one in PREFIXES if any(name.startswith(one) for name in rest)), "")
    return {name.removeprefix(prefix): (name, header.tensors[name]) for name in rest}, others


def _unfit(layer: Layer | None, kind: str, about: Tensor) -> str:
    """Why a tensor cannot be a layer's weight, bias or scale; "" if it can."""
    if layer is None or kind not in ("weight", "bias", "scale", *SCALES) or (kind == "bias" and not layer.bias):
        return "this model has no such layer"
    if about.dtype not in FLOATS and not about.dtype.startswith(PREFIX):
        return f"has type {about.dtype}"
    rows = layer.shape[0]
    if kind in SCALES:
        fits = about.shape in ((), (1,), (rows,), (rows, 1))
        return "" if fits else f"is {_by(about.shape)}; a scale for the whole weight or each of its rows is read here"
    wanted = (rows,) if kind == "bias" else layer.shape
    return "" if about.shape == wanted else f"is {_by(about.shape)}; this model has {_by(wanted)}"


def _notes(others: list[str]) -> tuple[str, ...]:
    if not others:
        return ()
    return (f"{len(others)} tensors such as {others[0]} are of other parts; those are taken from --model",)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "a single number"


def _explain(problems: dict[str, str], header: Header) -> str:
    examples = "; ".join(f"{name}: {why}" for name, why in list(problems.items())[:EXAMPLES])
    more = f"; and {len(problems) - EXAMPLES} more" if len(problems) > EXAMPLES else ""
    missing = sum(why == "is missing" for why in problems.values())
    if missing:
        text = f"lacks {missing} weights of this model's transformer. {examples}{more}"
        if all("guidance" in name for name in problems):
            text += ". It is of a model without guidance, such as FLUX.1-schnell: name that as --model"
        else:
            text += ". Use a complete file"
        return text
    count = f"{len(problems)} of {len(header.tensors)} tensors"
    return f"{count} do not fit this model's transformer. {examples}{more}. Use a file made for it"
