"""The tensors of a LoRA -> which layers they change, and how. Every tensor must belong to a layer, or the file is
refused. It reads the names of PEFT and diffusers, Kohya (also with dots, as ComfyUI writes them), XLabs, LyCORIS and
those of the programs that published the models. Knows shapes, not values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastgen.input.weights import alphas
from fastgen.input.weights.layers import Layer, Model
from fastgen.input.weights.safetensors import FLOATS, BadFile, Header, Tensor

PREFIXES = {
    "lora_unet_": "transformer",
    "lora_transformer_": "transformer",
    "lycoris_": "transformer",
    "lora_te1_": "text_encoder",
    "lora_te_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_2",
    "model.diffusion_model.": "transformer",
    "diffusion_model.": "transformer",
    "transformer.": "transformer",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.t5xxl.transformer.": "text_encoder_2",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
}
"""Prefix of a layer's name -> its part; a layer without any of them belongs to the transformer."""
WRAPPER = "base_model.model."
"""PEFT's own prefix, before any of the others."""
ROLES = {
    "down": r"(?:lora_A|lora_down|lora\.down|lora_linear_layer\.down|down)(?:\.[^.]+)?\.weight",
    "up": r"(?:lora_B|lora_up|lora\.up|lora_linear_layer\.up|up)(?:\.[^.]+)?\.weight",
    "up_bias": r"(?:lora_B|lora_up)(?:\.[^.]+)?\.bias",
    "alpha": r"alpha",
    "magnitude": r"dora_scale|lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?",
    **{f"{kind}_{name}": rf"{kind}_{name}" for kind in ("lokr", "hada") for name in ("w1_a", "w1_b", "w2_a", "w2_b")},
    **{f"lokr_{name}": rf"lokr_{name}" for name in ("w1", "w2")},
    "difference": r"diff|w_norm",
    "bias_difference": r"diff_b|b_norm",
    "value": r"weight|scale|set_weight",
}
"""Role of a tensor in its layer -> suffix of its name."""
FAMILIES = {
    "LoKr or LoHa with a core tensor": r"\.(lokr|hada)_t[12]",
    "OFT": r"\.b?oft_",
    "(IA)3": r"ia3_|\.on_input$",
    "GLoRA": r"\.[ab][12]\.weight$",
    "LoCon with a middle layer": r"\.lora_mid\.",
    "VeRA": r"vera_lambda",
    "an embedding": r"lora_embedding_|^bundle_emb|\bemb_params$",
}
"""Kinds of adapters that are not supported -> what is in the names of their tensors."""
WITHOUT_EFFECT = {"text_projection": "FLUX.1 does not use CLIP's projection"}
"""Tensors that are left out, and why that changes nothing."""
EXAMPLES = 3


@dataclass(frozen=True)
class Change:
    """What a LoRA does to one layer."""

    layer: Layer
    tensors: dict[str, str]
    """Role -> the tensor's name in the file."""
    rank: int = 0
    """0 if it is not a product of two matrices."""
    alpha: float | None = None
    """From the file's metadata, if there is no tensor for it; None: the rank."""
    root: bool = False
    """Rank-stabilized: alpha is divided by the square root of the rank."""

    def factor(self, alpha: float | None) -> float:
        """The factor of the product of the two matrices. `alpha`: from the file's tensor, None without one."""
        if not self.rank:  # a LoKr whose matrices are whole
            return 1.0
        alpha = self.alpha if alpha is None else alpha
        return 1.0 if alpha is None else alpha / (math.sqrt(self.rank) if self.root else self.rank)


@dataclass(frozen=True)
class Plan:
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    """What the user should be told."""

    @property
    def parts(self) -> set[str]:
        """The parts of the model that it changes."""
        return {change.layer.part for change in self.changes}


@dataclass
class _Group:
    """The tensors in a file for one layer, by the file's name for it."""

    layer: Layer | None
    tensors: dict[str, str] = field(default_factory=dict)


def plan(header: Header, model: Model) -> Plan:
    """What a file changes.

    Raises:
        BadFile: a tensor does not belong to this model, or has the wrong kind or shape.
    """
    _refuse_families(header)
    groups: dict[str, _Group] = {}
    problems: dict[str, str] = {}
    unused: dict[str, list[str]] = {}
    for name in header.tensors:
        if reason := next((why for word, why in WITHOUT_EFFECT.items() if word in name), ""):
            unused.setdefault(reason, []).append(name)
        elif found := _read_name(name, model):
            own, role, layer = found
            group = groups.setdefault(own, _Group(layer))
            if role in group.tensors:
                problems[name] = f"repeats {group.tensors[role]}"
            group.tensors.setdefault(role, name)
        else:
            problems[name] = "is not a tensor of a LoRA"
    changes = []
    for own, group in groups.items():
        bad = _check(own, group, header.tensors)
        problems |= bad
        if not bad and group.layer is not None:
            changes.append(_change(group.layer, group.tensors, header))
    if not problems:
        problems = dict(_twice(changes))
    if problems:
        raise BadFile(_explain(problems, len(header.tensors)))
    if not changes:
        raise BadFile("contains no LoRA weights; give the file of a LoRA")
    notes = [f"{_some(names)} are left out: {why}" for why, names in unused.items()]
    if unsaid := [name for change in changes for name in _without_alpha(change)]:
        where = f"which PEFT keeps in {alphas.PEFT_CONFIG} beside its file"
        notes.append(f"no alpha for {_some(unsaid)}, {where}: the rank is taken for it")
    return Plan(tuple(changes), tuple(notes))


def _without_alpha(change: Change) -> list[str]:
    """The first tensor of a layer in PEFT's own file whose alpha is nowhere."""
    name = next(iter(change.tensors.values()))
    products = {"down", "lokr_w1", "lokr_w1_a", "hada_w1_a"} & change.tensors.keys()
    said = change.alpha is not None or "alpha" in change.tensors
    return [name] if products and not said and name.startswith(WRAPPER) else []


def _read_name(name: str, model: Model) -> tuple[str, str, Layer | None] | None:
    """A tensor's name -> (the file's name for its layer, its role, the layer or None if the model has none)."""
    for role, ending in ROLES.items():
        if match := re.fullmatch(rf"(.+?)\.(?:{ending})", name):
            own = match[1]
            plain = own.removeprefix(WRAPPER)
            prefix = next((prefix for prefix in PREFIXES if plain.startswith(prefix)), "")
            part = PREFIXES.get(prefix, "transformer")
            return own, role, model.layer(part, plain.removeprefix(prefix))
    return None


def _refuse_families(header: Header) -> None:
    for kind, words in FAMILIES.items():
        names = [name for name in header.tensors if re.search(words, name)]
        if names:
            raise BadFile(f"is {kind} ({_some(names)}), which is not supported; use a LoRA, DoRA, LoKr or LoHa")


def _check(own: str, group: _Group, tensors: dict[str, Tensor]) -> dict[str, str]:
    """What is wrong with the tensors of one layer: name -> reason."""
    names, layer = group.tensors, group.layer
    if layer is None:
        return dict.fromkeys(names.values(), "this model has no such layer")
    problems = {name: f"has type {tensors[name].dtype}" for name in names.values() if tensors[name].dtype not in FLOATS}
    shapes = {role: _flat(tensors[name].shape) for role, name in names.items()}
    outputs = layer.shape[0]
    inputs = layer.shape[1] if len(layer.shape) == 2 else 0
    kinds = {role.partition("_")[0] for role in names} & {"lokr", "hada"}
    if len(kinds) + bool({"down", "up"} & names.keys()) > 1:
        problems |= dict.fromkeys(names.values(), "the layer is changed in two ways")
    elif kinds:
        problems |= _check_factors(kinds.pop(), names, shapes, layer)
    elif {"down", "up"} & names.keys():
        problems |= _check_product(names, shapes, layer)
    elif lonely := {"alpha", "magnitude", "up_bias"} & names.keys():
        problems |= {names[role]: "the two matrices that it belongs to are missing" for role in lonely}
    wanted: dict[str, set[tuple[int, ...]]] = {
        "alpha": {(), (1,)},
        "up_bias": {(outputs,)} if layer.bias else set(),
        "magnitude": {(outputs,), (outputs, 1), (1, inputs)},
        "difference": {layer.shape},
        "bias_difference": {(outputs,)} if layer.bias else set(),
        "value": {layer.shape} if len(layer.shape) == 1 else set(),
    }
    for role in wanted.keys() & names.keys():
        if shapes[role] not in wanted[role]:
            fits = " or ".join(map(_by, sorted(wanted[role])))
            reason = (
                f"is {_by(shapes[role])}, not {fits}" if fits else "replaces a whole weight, which is not supported"
            )
            if role in ("up_bias", "bias_difference") and not fits:
                reason = "the layer has no bias"
            problems[names[role]] = f"{layer.name}: {reason}"
    return problems


def _check_product(names: dict[str, str], shapes: dict[str, tuple[int, ...]], layer: Layer) -> dict[str, str]:
    """What is wrong with the two matrices of a layer."""
    for role, other in (("down", "up"), ("up", "down")):
        if role not in names:
            return {names[other]: "its other matrix is missing"}
    down, up = shapes["down"], shapes["up"]
    if len(layer.shape) == 2 and len(down) == len(up) == 2 and down[0] == up[1]:
        if (up[0], down[1]) == layer.shape:
            return {}
        if layer.pieces[0].path == "x_embedder" and down[1] == 2 * layer.shape[1]:
            reason = "this is a control LoRA (Depth, Canny), which needs a control image; that is not supported"
            return {names["down"]: f"{layer.name}: {reason}"}
    return {
        names["down"]: f"{layer.name} is {_by(layer.shape)} (outputs x inputs); the two matrices are {_by(up)} and "
        f"{_by(down)}"
    }


def _check_factors(
    kind: str, names: dict[str, str], shapes: dict[str, tuple[int, ...]], layer: Layer
) -> dict[str, str]:
    """What is wrong with the matrices of a LoKr or LoHa of a layer."""
    own = {role: name for role, name in names.items() if role.startswith(kind)}
    if other := names.keys() & {"magnitude", "up_bias"}:
        return {names[role]: "is not supported beside LoKr and LoHa" for role in other}
    sides = []
    for side in ("w1", "w2"):
        one, first, second = (shapes.get(f"{kind}_{side}{end}") for end in ("", "_a", "_b"))
        if one is None and first and second and len(first) == len(second) == 2 and first[1] == second[0]:
            one = first[0], second[1]
        if one is None or len(one) != 2:
            return dict.fromkeys(own.values(), f"its matrices {kind}_{side} are missing or do not fit together")
        sides.append(one)
    (a, b), (c, d) = sides
    made = (a * c, b * d) if kind == "lokr" else (a, b) if sides[0] == sides[1] else ()
    if made == layer.shape:
        return {}
    reason = f"{layer.name} is {_by(layer.shape)} (outputs x inputs); the matrices are {_by(sides[0])} and "
    return dict.fromkeys(own.values(), reason + _by(sides[1]))


def _change(layer: Layer, names: dict[str, str], header: Header) -> Change:
    inner = next((names[role] for role in ("down", "lokr_w2_b", "lokr_w1_b", "hada_w1_b") if role in names), "")
    if not inner and "lokr_w1" not in names:
        return Change(layer, names)
    alpha, root, rank = alphas.of(layer, header)
    return Change(layer, names, rank or (header.tensors[inner].shape[0] if inner else 0), alpha, root)


def _twice(changes: list[Change]) -> Iterator[tuple[str, str]]:
    """Layers that a file changes under two names, so that the meaning is unclear."""
    seen: dict[tuple[str, str], tuple[int, int, str]] = {}
    for change in changes:
        name = next(iter(change.tensors.values()))
        for piece in change.layer.pieces:
            place = (change.layer.part, piece.path)
            start, stop, other = seen.setdefault(place, (piece.start, piece.stop, name))
            if other != name and start < piece.stop and piece.start < stop:
                yield name, f"changes {piece.path} a second time, as {other} does"


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the kernel size of 1x1 convolutions."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "a single number"


def _some(names: list[str]) -> str:
    tensors = "tensor" if len(names) == 1 else "tensors"
    return f"{len(names)} {tensors} such as {names[0]}"


def _explain(problems: dict[str, str], count: int) -> str:
    examples = "; ".join(f"{name}: {why}" for name, why in list(problems.items())[:EXAMPLES])
    more = f"; and {len(problems) - EXAMPLES} more" if len(problems) > EXAMPLES else ""
    return f"{len(problems)} of {count} tensors do not fit this model; use a LoRA made for it. {examples}{more}"
