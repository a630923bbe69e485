"""What a mask selects: by its colours, by its transparency, by what its row says; refused where none of them tells."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from fastgen.errors import InputError
from fastgen.input.masks import (
    BLACK,
    CONVENTION,
    CONVENTIONS,
    FIELDS,
    OPAQUE,
    OPENAI,
    TRANSPARENT,
    WHITE,
    load_mask,
    read_mask,
)

SIZE = (64, 48)
BOX = (8, 8, 40, 30)
HOLE = (8, 8, 39, 29)
"""The same for ImageDraw, which counts the last pixel in."""


def saved(path, image, **options) -> str:
    image.save(path, **options)
    return str(path)


def photo(low: int = 0, high: int = 256) -> Image.Image:
    blocks = np.random.default_rng(1).integers(low, high, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(SIZE, Image.Resampling.BICUBIC)


def with_hole(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    alpha = Image.new("L", SIZE, 255)
    ImageDraw.Draw(alpha).rectangle(HOLE, 0)
    image.putalpha(alpha)
    return image


def drawn(color: tuple[int, int, int]) -> Image.Image:
    """A rectangle on a transparent layer."""
    image = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle(HOLE, (*color, 255))
    return image


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "RGBA", "LA", "I;16"])
def test_white_is_repainted(tmp_path, mode):
    white = Image.new("L", (8, 4), 0)
    white.paste(255, (0, 0, 4, 4))
    image = white.point(lambda value: value * 257, "I").convert("I;16") if mode == "I;16" else white.convert(mode)
    mask = load_mask(saved(tmp_path / "mask.png", image), (8, 4))
    assert mask.image.mode == "L" and ImageChops.difference(mask.image, white).getbbox() is None
    assert mask.warnings == ()


def test_opaque_is_repainted_where_the_row_says_so(tmp_path):
    image = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 4))
    mask = load_mask(saved(tmp_path / "mask.png", image), (8, 4), convention=OPAQUE).image
    assert mask.getbbox() == (0, 0, 4, 4)


def test_the_picture_with_a_hole_is_repainted_in_the_hole(tmp_path):
    """OpenAI's form, whether or not colours are left in the hole, and when the mask is smaller."""
    picture = photo()
    cleared = with_hole(picture)
    cleared.paste((0, 0, 0, 0), BOX)
    small = with_hole(picture).resize((32, 24), Image.Resampling.NEAREST)
    for number, image in enumerate([with_hole(picture), cleared, small]):
        path = saved(tmp_path / f"{number}.png", image)
        mask = load_mask(path, SIZE, picture=lambda: picture)
        assert mask.image.getbbox() == BOX and mask.warnings == ()
    dark = photo(0, 40)
    assert load_mask(saved(tmp_path / "dark.png", with_hole(dark)), SIZE, picture=lambda: dark).image.getbbox() == BOX


@pytest.mark.parametrize(("color", "told"), [((0, 0, 255), True), ((90, 90, 90), True), ((0, 0, 0), False)])
def test_a_flat_picture_with_a_hole_is_known_by_its_colour_unless_masks_are_drawn_with_it(tmp_path, color, told):
    flat = Image.new("RGB", SIZE, color)
    ImageDraw.Draw(flat).ellipse((12, 12, 30, 26), "red")  # in the hole
    mask = saved(tmp_path / "mask.png", with_hole(flat))
    if told:
        assert load_mask(mask, SIZE, picture=lambda: flat).image.getbbox() == BOX
        flat.paste((90, 255, 90), (41, 0, *SIZE))  # another picture
    with pytest.raises(InputError, match="could mean either"):
        load_mask(mask, SIZE, picture=lambda: flat)


@pytest.mark.parametrize("color", [(255, 255, 255), (250, 220, 40)])
def test_what_is_drawn_in_a_light_colour_on_a_transparent_layer_is_repainted_and_said(tmp_path, color):
    mask = load_mask(saved(tmp_path / "mask.png", drawn(color)), SIZE, picture=photo)
    assert mask.image.getbbox() == BOX
    assert len(mask.warnings) == 1 and CONVENTION in mask.warnings[0]


@pytest.mark.parametrize(
    "image",
    [
        drawn((0, 0, 0)),
        with_hole(Image.new("RGB", SIZE)),
        with_hole(photo().rotate(180)),
        with_hole(Image.new("L", SIZE, 9)),
    ],
    ids=["black layer", "black with a hole", "another picture", "dark"],
)
def test_transparency_that_may_mean_either_is_refused_with_the_fix(tmp_path, image):
    path = saved(tmp_path / "mask.png", image)
    with pytest.raises(InputError, match=f'"{CONVENTION}": "{TRANSPARENT}" or "{OPAQUE}"') as caught:
        load_mask(path, SIZE, "mask_image", picture=photo)
    assert caught.value.field == "mask_image"
    whole = load_mask(path, SIZE, convention=OPAQUE).image
    assert (
        ImageChops.difference(ImageChops.invert(whole), load_mask(path, SIZE, convention=TRANSPARENT).image).getbbox()
        is None
    )


def test_white_on_a_white_picture_may_mean_either(tmp_path):
    white = Image.new("RGB", SIZE, "white")
    with pytest.raises(InputError, match="could mean either"):
        load_mask(saved(tmp_path / "mask.png", with_hole(white)), SIZE, picture=lambda: white)


def test_conventions_that_are_said(tmp_path):
    grey = Image.new("L", SIZE, 0)
    grey.paste(255, BOX)
    path = saved(tmp_path / "grey.png", grey)
    assert load_mask(path, SIZE, convention=WHITE).image.getbbox() == BOX
    inverse = ImageChops.invert(load_mask(path, SIZE, convention=BLACK).image)
    assert ImageChops.difference(inverse, grey).getbbox() is None
    layer = saved(tmp_path / "layer.png", drawn((255, 255, 255)))
    assert load_mask(layer, SIZE, convention=WHITE).image.getbbox() == BOX, "what is not there is not selected"
    assert load_mask(saved(tmp_path / "b.png", drawn((0, 0, 0))), SIZE, convention=BLACK).image.getbbox() == BOX
    hole = saved(tmp_path / "hole.png", with_hole(photo()))
    assert load_mask(hole, SIZE, convention=TRANSPARENT).image.getbbox() == BOX
    with pytest.raises(InputError, match="only transparent pixels are repainted"):
        load_mask(path, SIZE, convention=TRANSPARENT)


def test_the_convention_of_openais_api(tmp_path):
    def selected(image):
        return load_mask(saved(tmp_path / "mask.png", image), SIZE, convention=OPENAI).image.getbbox()

    black = Image.new("L", SIZE, 0)
    black.paste(255, BOX)
    assert selected(with_hole(Image.new("RGB", SIZE, "black"))) == selected(black) == selected(black.convert("RGBA"))
    assert selected(black) == selected(with_hole(photo())) == BOX
    assert selected(Image.new("RGBA", SIZE, (0, 0, 0, 0))) == (0, 0, *SIZE), "all of it is to be repainted"


@pytest.mark.parametrize("alpha", [254, 128, 100, 0])
def test_the_same_transparency_everywhere_says_nothing(tmp_path, alpha):
    grey = Image.new("L", SIZE, 0)
    grey.paste(255, BOX)
    image = grey.convert("RGBA")
    image.putalpha(alpha)
    assert load_mask(saved(tmp_path / "mask.png", image), SIZE).image.getbbox() == BOX
    image.putpixel((0, 0), (0, 0, 0, min(255, alpha + 1)))
    assert load_mask(saved(tmp_path / "nearly.png", image), SIZE).image.getbbox() == BOX


def test_a_mask_is_scaled_and_stays_black_and_white(tmp_path):
    image = Image.new("L", (16, 8), 0)
    image.paste(200, (0, 0, 8, 8))
    mask = load_mask(saved(tmp_path / "mask.png", image), (8, 4)).image
    assert mask.size == (8, 4) and mask.getbbox() == (0, 0, 4, 4) and sorted(set(mask.tobytes())) == [0, 255]


def test_soft_masks_are_named_and_smooth_edges_are_not(tmp_path):
    large = Image.new("L", (800, 800), 0)
    ImageDraw.Draw(large).ellipse((200, 200, 600, 600), 255)
    smooth = large.resize((200, 200), Image.Resampling.LANCZOS)
    assert load_mask(saved(tmp_path / "smooth.png", smooth), (200, 200)).warnings == ()
    assert load_mask(saved(tmp_path / "smooth.jpg", smooth, quality=85), (200, 200)).warnings == ()
    soft = smooth.filter(ImageFilter.GaussianBlur(8))
    [said] = load_mask(saved(tmp_path / "soft.png", soft), (200, 200)).warnings
    assert "pixels are grey" in said and "128 of 255" in said
    layer = Image.new("RGBA", (200, 200), "white")
    layer.putalpha(soft)
    assert any("grey" in said for said in load_mask(saved(tmp_path / "layer.png", layer), (200, 200)).warnings)


def test_a_mask_of_everything_is_named_and_one_of_nothing_refused(tmp_path):
    [said] = load_mask(saved(tmp_path / "white.png", Image.new("L", (8, 4), 255)), (8, 4)).warnings
    assert "the whole image" in said
    with pytest.raises(InputError, match=f"selects nothing: only white pixels are repainted.*{CONVENTION}"):
        load_mask(saved(tmp_path / "black.png", Image.new("L", (8, 4), 0)), (8, 4))
    with pytest.raises(InputError, match="the highest here is 100"):
        load_mask(saved(tmp_path / "grey.png", Image.new("L", (8, 4), 100)), (8, 4))
    with pytest.raises(InputError, match="shape of its image"):
        load_mask(saved(tmp_path / "square.png", Image.new("L", (8, 8), 255)), (8, 4))


def test_a_mask_has_many_names():
    for name in FIELDS:
        assert read_mask({name: "m.png"}, "/data") == ("/data/m.png", name, "")
    for row in ({}, {"mask": None, "mask_image": ""}, {"mask": []}, {"mask": False}):
        assert read_mask(row, "/data") == ("", "mask", "")
    assert read_mask({"mask": "", "mask_path": "m.png"}, "/data")[1] == "mask_path"
    assert read_mask({"mask": "m.png", "mask_image": "m.png"}, "/data")[1] == "mask"
    with pytest.raises(InputError, match="another mask than `mask`") as caught:
        read_mask({"mask": "m.png", "mask_image": "n.png"}, "/data")
    assert caught.value.field == "mask_image"


def test_a_row_names_its_convention():
    for word in CONVENTIONS:
        assert read_mask({"mask": "m.png", CONVENTION: word}, "/data")[2] == word
    assert read_mask({"mask": "m.png", CONVENTION: "auto"}, "/data")[2] == ""
    for word in ("white", 5, ["white_is_edited"]):
        with pytest.raises(InputError, match="white_is_edited, black_is_edited") as caught:
            read_mask({"mask": "m.png", CONVENTION: word}, "/data")
        assert caught.value.field == CONVENTION
