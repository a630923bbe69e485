"""The layers of a model, and which of them a name from another program means. Does not know architectures or files.

Programs join the parts of a name with dots or with underscores, so all are looked up with underscores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

Shape = tuple[int, ...]
QKV, ADDED_QKV = ("attn.to_q", "attn.to_k", "attn.to_v"), ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
"""What one layer of other programs is split into in diffusers: for tokens of the image, and of the text."""


@dataclass(frozen=True)
class Piece:
    """Rows of one of the model's own layers."""

    path: str
    """Its name in diffusers and transformers, without the name of the part."""
    start: int
    stop: int


@dataclass(frozen=True)
class Layer:
    """A layer of a naming scheme: the rows of its pieces, one after the other."""

    name: str
    part: str
    """transformer, or a text encoder."""
    pieces: tuple[Piece, ...]
    shape: Shape
    """The shape of its weight: (outputs, inputs), or for a norm (width,)."""
    bias: bool


Names = dict[str, tuple[Piece, ...]]


class Model:
    """Args:
    shapes: part -> name of a parameter -> its shape.
    names: shapes of the transformer -> its layers by the names of other programs.
    unused: tensors of a transformer in one file that change nothing -> why.
    refused: tensors that say that such a file is of another model -> why.
    """

    def __init__(
        self,
        shapes: dict[str, dict[str, Shape]],
        names: Callable[[dict[str, Shape]], Names] = lambda shapes: {},
        unused: Mapping[str, str] | None = None,
        refused: Mapping[str, str] | None = None,
    ):
        self.shapes = shapes
        self.unused = dict(unused or {})
        self.refused = dict(refused or {})
        self._names = names

    def layer(self, part: str, name: str) -> Layer | None:
        """The layer with that name, in any naming scheme, with dots or underscores; None if the model has none."""
        return self._layers.get(part, {}).get(name.replace(".", "_"))

    @cached_property
    def _layers(self) -> dict[str, dict[str, Layer]]:
        found: dict[str, dict[str, Layer]] = {}
        for part, shapes in self.shapes.items():
            paths = [name.removesuffix(".weight") for name in shapes if name.endswith(".weight")]
            own: Names = {path: (Piece(path, 0, shapes[f"{path}.weight"][0]),) for path in paths}
            if part == "text_encoder":  # older versions of transformers, and so most files, have one level more
                own |= {f"text_model.{path}": pieces for path, pieces in own.items()}
            if part == "transformer":
                own |= self._names(shapes)
            found[part] = {name.replace(".", "_"): self._layer(part, name, pieces) for name, pieces in own.items()}
        return found

    def _layer(self, part: str, name: str, pieces: tuple[Piece, ...]) -> Layer:
        shapes, path = self.shapes[part], pieces[0].path
        rows = sum(piece.stop - piece.start for piece in pieces)
        return Layer(name, part, pieces, (rows, *shapes[f"{path}.weight"][1:]), f"{path}.bias" in shapes)


def whole(shapes: dict[str, Shape], *paths: str) -> tuple[Piece, ...]:
    """These layers, one after the other."""
    return tuple(Piece(path, 0, shapes[f"{path}.weight"][0]) for path in paths)


def blocks(shapes: dict[str, Shape], ours: str, theirs: str, names: Mapping[str, tuple[str, ...]]) -> Names:
    """The layers of all blocks of a list, by the names of another program.

    Args:
        ours, theirs: names of the list.
        names: their name of a layer in a block -> ours.
    """
    rest = [name.removeprefix(f"{ours}.") for name in shapes if name.startswith(f"{ours}.")]
    count = 1 + max((int(name.partition(".")[0]) for name in rest), default=-1)
    found: Names = {}
    for number in range(count):
        for name, paths in names.items():
            own = [f"{ours}.{number}.{path}" for path in paths]
            if all(f"{path}.weight" in shapes for path in own):
                found[f"{theirs}.{number}.{name}"] = whole(shapes, *own)
    return found


def swapped(shapes: dict[str, Shape], path: str) -> tuple[Piece, ...]:
    """The two halves of a layer the other way round."""
    rows = shapes[f"{path}.weight"][0]
    return Piece(path, rows // 2, rows), Piece(path, 0, rows // 2)
