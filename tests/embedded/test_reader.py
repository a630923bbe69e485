"""The scene reader is proved on drawings before it judges anything else."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fastgen.embedded.scenes import CANVASES, COLORS, KINDS, PLACES, SIZES, Scene, Shape, draw, random_scene, read


def as_drawn(picture: Image.Image) -> Image.Image:
    return picture


def as_jpeg(picture: Image.Image) -> Image.Image:
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=80)
    return Image.open(written)


def blurred(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(1))


@pytest.mark.slow
@pytest.mark.parametrize("how", [as_drawn, as_jpeg, blurred])
def test_it_reads_what_was_drawn(how):
    """At least 99.5 % of scenes, every word of them."""
    rng, count, wrong = random.Random(f"reader-{how.__name__}"), 600, []
    for index in range(count):
        scene = random_scene(rng, CANVASES[index % len(CANVASES)])
        found = read(np.asarray(how(Image.fromarray(draw(scene)))))
        if found.words() != scene.words():
            wrong.append((scene.words(), found.words()))
    assert len(wrong) <= 0.005 * count, wrong


@pytest.mark.slow
def test_it_reads_every_shape_in_every_place_on_every_canvas():
    rng = random.Random(1)
    for width, height in CANVASES:
        for kind in KINDS:
            for size in SIZES:
                for place in PLACES:
                    ground, color = rng.sample(list(COLORS), 2)
                    scene = Scene(ground, (Shape(kind, color, size, place),), width, height)
                    assert read(draw(scene)).words() == scene.words()


def test_it_reads_larger_pictures_too():
    scene = Scene(
        "white", (Shape("star", "purple", "small", "left"), Shape("cross", "green", "large", "right")), 384, 256
    )
    assert read(draw(scene)).words() == scene.words()


def test_it_sees_nothing_where_nothing_is():
    empty = np.zeros((96, 128, 3), np.uint8) + np.array(COLORS["pink"], np.uint8)
    assert read(empty).words() == ("pink", ())
    specked = empty.copy()
    specked[40:43, 50:54] = COLORS["black"]
    assert read(specked).words() == ("pink", ())


def test_it_does_not_take_noise_for_a_scene():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    rng = random.Random(0)
    assert all(read(noise).words() != random_scene(rng).words() for _ in range(20))


def test_a_blob_is_no_circle():
    """What a badly trained model draws must not pass for the kind that it happens to be nearest to."""
    y, x = np.mgrid[0:128, 0:128] - 64.0
    lumps = 24 + 9 * np.sin(3 * np.arctan2(y, x)) + 7 * np.sin(5 * np.arctan2(y, x) + 1)
    picture = np.where((np.hypot(x, y) < lumps)[..., None], COLORS["red"], COLORS["blue"]).astype(np.uint8)
    (shape,) = read(picture).shapes
    assert shape.kind == "blob" and shape.color == "red" and shape.place == "center"


def test_shapes_that_touch_are_told_apart_by_colour():
    canvas = np.zeros((128, 128, 3), np.uint8) + np.array(COLORS["white"], np.uint8)
    canvas[20:60, 30:70] = COLORS["red"]
    canvas[60:100, 30:70] = COLORS["blue"]
    assert {(s.kind, s.color) for s in read(canvas).shapes} == {("square", "red"), ("square", "blue")}
