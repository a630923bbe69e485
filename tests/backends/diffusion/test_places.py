"""What an edit paints lies where it was in its picture: for pictures of any shape, masked or not, one or several."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fastgen.backends.diffusion.files import Inputs
from fastgen.embedded.scenes import COLORS, Scene, Shape, draw, read
from fastgen.input import color_profiles
from fastgen.input.readers.rows import Row
from fastgen.input.requests import Intake
from fastgen.types import Batch, Bucket, Request
from tests.input.profiles import display_p3

BLUE = np.array(COLORS["blue"])


def read_row(backend, row: dict) -> Request:
    intake = Intake(backend.settings)
    line = Row(1, json.dumps(row).encode())
    return intake.read(line, intake.identify(line))


def run(backend, row: dict):
    """The row's result, made by the engine itself."""
    request = read_row(backend, row)
    (result,) = backend.run(Batch(Bucket.of(request), (request,)))
    return result


def painted(picture: np.ndarray) -> np.ndarray:
    return abs(picture.astype(int) - BLUE).max(2) > 60


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


@pytest.fixture(scope="module")
def beside(tmp_path_factory) -> str:
    """Another picture, which has nothing to do with the first."""
    path = tmp_path_factory.mktemp("beside") / "other.png"
    Image.fromarray(draw(Scene("white", (Shape("square", "green", "large", "center"),)))).save(path)
    return str(path)


SHAPES = [(128, 512), (128, 256), (128, 128), (640, 360), (512, 128)]


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("size", SHAPES, ids=["{}x{}".format(*size) for size in SHAPES])
def test_a_shape_stays_where_it_is(edit, beside, tmp_path, size, masked, several):
    place = "left" if size[0] >= size[1] else "top"
    before = draw(Scene("blue", (Shape("circle", "red", "large", place),), *size))
    Image.fromarray(before).save(tmp_path / "in.png")
    row = {"id": "r", "images": [str(tmp_path / "in.png")], "prompt": "make the circle yellow", "seed": 1}
    if several:
        row["images"].append(beside)
    if masked:
        mask = Image.fromarray(painted(before).astype(np.uint8) * 255)
        mask.filter(ImageFilter.MaxFilter(9)).save(tmp_path / "mask.png")
        row["mask"] = str(tmp_path / "mask.png")
    made = Image.open(f"{edit.settings.run.out}/{run(edit, row).paths[0]}").convert("RGB")
    found = read(np.asarray(made))
    assert place in [shape.place for shape in found.shapes], found
    after = np.asarray(made.resize(size))
    # Several pictures are nothing that the small model was taught: what it paints besides is its own.
    assert overlap(painted(after), painted(before)) > (0.8 if masked or not several else 0.7)
    assert several or ("circle", "yellow") in [(shape.kind, shape.color) for shape in found.shapes]
    assert made.size == size if masked else abs(made.width / made.height / (size[0] / size[1]) - 1) < 0.02


def test_a_masked_edit_keeps_the_colours_of_its_file(edit, tmp_path):
    """Outside the mask the values of the file, with its profile; inside what the model painted, in the same colours."""
    profile = display_p3()
    before = draw(Scene("blue", (Shape("circle", "red", "large", "center"),)))
    Image.fromarray(before).save(tmp_path / "in.png", icc_profile=profile)
    mask = Image.fromarray(painted(before).astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(9))
    mask.save(tmp_path / "mask.png")
    row = {"id": "p3", "image": str(tmp_path / "in.png"), "prompt": "make the circle yellow", "seed": 1}
    masked = Image.open(f"{edit.settings.run.out}/{run(edit, {**row, 'mask': str(tmp_path / 'mask.png')}).paths[0]}")
    inside = np.asarray(mask) > 0
    assert masked.info["icc_profile"] == profile
    assert (np.asarray(masked)[~inside] == before[~inside]).all()
    middle = np.asarray(masked)[60:68, 60:68].reshape(-1, 3).mean(0)
    colors = color_profiles.read(Image.fromarray(before), profile)
    yellow = colors.as_own(Image.new("RGB", (1, 1), COLORS["yellow"])).getpixel((0, 0))
    assert abs(middle - np.array(yellow)).max() < 25
    whole = Image.open(f"{edit.settings.run.out}/{run(edit, row).paths[0]}")
    assert "icc_profile" not in whole.info, "what the model makes is sRGB"
    seen = Inputs(read_row(edit, row)).references[0].getpixel((3, 3))
    assert seen == colors.srgb.getpixel((3, 3)) != tuple(before[3, 3])


def test_what_is_to_be_said_of_a_mask_and_of_colours_stands_in_the_row(edit, tmp_path):
    Image.fromarray(draw(Scene("blue", ()))).save(tmp_path / "in.png", icc_profile=b"junk")
    Image.new("L", (128, 128), 255).save(tmp_path / "all.png")
    row = {
        "id": "w",
        "image": str(tmp_path / "in.png"),
        "mask_image": str(tmp_path / "all.png"),
        "prompt": "a",
        "steps": 1,
    }
    warnings = run(edit, row).warnings
    assert len(warnings) == 2 and "colour profile cannot be read" in warnings[0] and "the whole image" in warnings[1]
    Image.new("L", (128, 128), 0).save(tmp_path / "all.png")
    failed = run(edit, row)
    assert failed.kind == "input" and failed.field == "mask_image" and "selects nothing" in failed.message


def test_a_mask_that_vanishes_at_the_size_asked_for_is_refused(edit, tmp_path):
    Image.fromarray(draw(Scene("blue", ()))).resize((640, 640)).save(tmp_path / "in.png")
    mask = Image.new("L", (640, 640))
    mask.putpixel((321, 1), 255)
    mask.save(tmp_path / "mask.png")
    row = {
        "id": "v",
        "image": str(tmp_path / "in.png"),
        "mask": str(tmp_path / "mask.png"),
        "prompt": "a",
        "size": "64x64",
    }
    failed = run(edit, row)
    assert failed.kind == "input" and "nothing once it is scaled to 64x64" in failed.message


def test_marks_of_pictures_never_reach_the_prompt(edit, tmp_path):
    Image.fromarray(draw(Scene("blue", ()))).save(tmp_path / "in.png")
    turns = [{"from": "human", "value": "<image>\nmake the circle blue"}, {"from": "human", "value": "<image> and red"}]
    done = run(edit, {"id": "m", "image": str(tmp_path / "in.png"), "conversation": turns, "steps": 1})
    assert Image.open(f"{edit.settings.run.out}/{done.paths[0]}").text["prompt"] == "make the circle blue\nand red"
