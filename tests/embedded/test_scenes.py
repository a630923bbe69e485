"""The world's words: what is described, captioned or told to be edited is understood again; and drawn as it is said."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fastgen.embedded.scenes import (
    CANVASES,
    COLORS,
    KINDS,
    OPERATIONS,
    PLACES,
    SIZES,
    Edit,
    Scene,
    Shape,
    Wanted,
    Wish,
    apply,
    as_wish,
    caption,
    changed,
    describe,
    draw,
    match,
    parse,
    parse_edit,
    random_edit,
    random_scene,
)
from fastgen.embedded.scenes.edits import say
from fastgen.embedded.scenes.world import GRID, USUAL, room_for


def scenes(count: int, seed: str, shapes: int | None = None):
    rng = random.Random(seed)
    for index in range(count):
        yield random_scene(rng, CANVASES[index % len(CANVASES)], shapes), rng


def test_scenes_use_the_whole_world_and_their_shapes_keep_apart():
    seen: dict[str, set] = {"kind": set(), "color": set(), "size": set(), "place": set(), "count": set()}
    for scene, _ in scenes(400, "world"):
        seen["count"].add(len(scene.shapes))
        assert len(scene.colors) == 1 + len(scene.shapes), "no two things share a colour"
        for index, shape in enumerate(scene.shapes):
            assert room_for(shape, scene.shapes[:index], scene.width, scene.height)
            for part in ("kind", "color", "size", "place"):
                seen[part].add(getattr(shape, part))
    assert seen["kind"] == set(KINDS) and seen["color"] == set(COLORS) and seen["count"] == {1, 2, 3}
    assert seen["size"] == set(SIZES) and seen["place"] == set(PLACES)
    assert len({width / height for width, height in CANVASES}) >= 4


def test_a_shape_falls_on_the_tokens_alike_at_every_place_of_every_canvas():
    def tokens(place: str, canvas: tuple[int, int]) -> np.ndarray:
        shape = Shape("star", "red", "large", place)
        x, y = map(int, shape.center(*canvas))
        return shape.coverage(*canvas)[y - 2 * GRID : y + 2 * GRID, x - 2 * GRID : x + 2 * GRID]

    for canvas in CANVASES:
        centers = {Shape("star", "red", "large", place).center(*canvas) for place in PLACES}
        assert len(centers) == len(PLACES) and all(x % GRID == y % GRID == 0 for x, y in centers)
        for place in PLACES:
            np.testing.assert_allclose(tokens(place, canvas), tokens("center", CANVASES[0]), atol=1e-3)
    left, middle, right = (
        Shape("star", "red", "small", place).center(203, 150)[0] for place in ("left", "center", "right")
    )
    assert middle - left == right - middle, "symmetrical on any canvas"


def test_a_drawing_is_flat_and_as_said():
    scene = Scene("blue", (Shape("square", "red", "large", "top left"),), 160, 112)
    picture = draw(scene)
    assert picture.shape == (112, 160, 3) and picture.dtype == np.uint8
    assert tuple(picture[-1, -1]) == COLORS["blue"]
    x, y = scene.shapes[0].center(160, 112)
    assert tuple(picture[int(y), int(x)]) == COLORS["red"] and x < 80 and y < 56
    colors = np.unique(picture.reshape(-1, 3), axis=0)
    assert len(colors) < 40, "two colours and the blends along the edge"


def test_every_description_is_understood():
    texts = set()
    for scene, rng in scenes(1500, "describe"):
        text = describe(scene, rng)
        texts.add(text.text)
        wish = parse(text.text)
        assert match(wish, scene).all, (text.text, scene.words())
        assert len(wish.shapes) == len(scene.shapes)
        places = [w.place for w in wish.shapes]
        if not any(places):
            places = USUAL.get(len(places), [])
        said = Counter((w.size or "large", p or "center") for w, p in zip(wish.shapes, places, strict=True))
        assert said == Counter((s.size, s.place) for s in scene.shapes), "only what goes without saying is unsaid"
        for start, end, subject in text.spans:
            named = scene.background if subject == "background" else scene.shapes[subject].color
            assert named in text.text[start:end]
    assert len(texts) > 1450, "varied"


def test_the_caption_says_everything_once():
    for scene, _ in scenes(400, "caption"):
        assert parse(caption(scene)) == as_wish(scene)
    assert caption(Scene("gray", (), 128, 128)) == "an empty gray background"
    two = Scene("orange", (Shape("star", "blue", "small", "right"), Shape("circle", "red", "large", "top left")))
    assert caption(two) == (
        "a large red circle at the top left and a small blue star on the right on an orange background"
    )


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("a red circle on a blue background", Wish("blue", (Wanted("circle", "red"),))),
        (
            "A BIG Red Disc, centred? No: in the middle, on GREY.",
            Wish("gray", (Wanted("circle", "red", "large", "center"),)),
        ),
        (
            "on green, a tiny plus in the lower left corner",
            Wish("green", (Wanted("cross", None, "small", "bottom left"),)),
        ),
        ("the background is pink, there is a black box", Wish("pink", (Wanted("square", "black"),))),
        ("white star", Wish(None, (Wanted("star", "white"),))),
        ("just a plain yellow background", Wish("yellow", ())),
        ("red triangle top, blue background", Wish("blue", (Wanted("triangle", "red", None, "top"),))),
        ("a house by the sea", None),
    ],
)
def test_free_wordings(text, wish):
    assert parse(text) == wish


def test_every_instruction_is_understood():
    seen = set()
    for scene, rng in scenes(1500, "edit"):
        edit, text, after = random_edit(scene, rng)
        seen.add(edit.operation)
        assert parse_edit(text.text) == edit, text.text
        assert parse_edit(say(edit, scene, rng).text) == edit
        assert apply(edit, scene).words() == after.words()
        assert after.words() != scene.words()
    assert seen == set(OPERATIONS)


def test_an_edit_changes_what_it_says_and_nothing_else():
    for scene, rng in scenes(120, "changed"):
        edit, _, after = random_edit(scene, rng)
        mask = changed(scene, after)
        assert mask.shape == (scene.height, scene.width) and mask.any()
        assert (draw(scene)[~mask] == draw(after)[~mask]).all()
        if edit.operation in ("recolor", "remove", "resize"):
            assert mask.mean() < 0.6
        kept = {s.kind + s.place + s.size for s in scene.shapes} & {s.kind + s.place + s.size for s in after.shapes}
        assert edit.operation != "background" or len(kept) == len(scene.shapes)


def test_an_edit_of_what_is_not_there_is_none():
    scene = Scene("blue", (Shape("star", "red", "small", "top"), Shape("star", "white", "large", "bottom")))
    assert apply(Edit("remove", Wanted("circle")), scene) is None
    assert apply(Edit("remove", Wanted("star")), scene) is None, "two of them: which one?"
    assert (
        apply(Edit("remove", Wanted("star", "red")), scene).words() == replace(scene, shapes=scene.shapes[1:]).words()
    )
    assert parse_edit("make it night") is None and parse_edit("") is None
    with pytest.raises(ValueError, match="no remove"):
        random_edit(Scene("blue", ()), random.Random(0), "remove")


def test_match_finds_the_best_pairing_and_says_what_is_wrong():
    scene = Scene("blue", (Shape("star", "red", "small", "top"), Shape("circle", "white", "large", "bottom")))
    assert match(Wish("blue", (Wanted("circle", "white"), Wanted("star"))), scene).all
    wrong = match(Wish("blue", (Wanted("circle", "white", "small"), Wanted("star"))), scene)
    assert not wrong.all and not wrong.sizes and wrong.kinds and wrong.colors and wrong.places and wrong.background
    assert not match(Wish("blue", (Wanted("star"),)), scene).count
    assert not match(Wish("red", (Wanted("star"), Wanted("circle"))), scene).background
    assert not match(Wish(None, (Wanted("star"), Wanted("star"))), scene).kinds
