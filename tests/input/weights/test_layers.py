"""A layer is found by any of its names."""

from __future__ import annotations

from fastgen.input.weights.layers import Model, Piece, blocks, swapped, whole

SHAPES = {f"list.{number}.{name}.weight": (4, 2) for number in range(2) for name in "abc"}
SHAPES |= {"last.weight": (6, 4), "last.bias": (6,), "token": (1, 4)}


def test_names_with_dots_and_underscores():
    model = Model({"transformer": SHAPES}, lambda shapes: {"end": whole(shapes, "last")})
    assert model.layer("transformer", "list.1.a") == model.layer("transformer", "list_1_a")
    end = model.layer("transformer", "end")
    assert (end.pieces, end.shape, end.bias) == ((Piece("last", 0, 6),), (6, 4), True)
    assert model.layer("transformer", "token") is model.layer("text_encoder", "last") is None


def test_a_layer_that_is_several():
    found = blocks(SHAPES, "list", "theirs", {"ab": ("a", "b"), "c": ("c",), "d": ("d",)})
    assert found.keys() == {"theirs.0.ab", "theirs.0.c", "theirs.1.ab", "theirs.1.c"}
    assert found["theirs.1.ab"] == (Piece("list.1.a", 0, 4), Piece("list.1.b", 0, 4))
    model = Model({"transformer": SHAPES}, lambda shapes: found)
    assert model.layer("transformer", "theirs_1_ab").shape == (8, 2)


def test_halves_the_other_way_round():
    assert swapped(SHAPES, "last") == (Piece("last", 3, 6), Piece("last", 0, 3))
