"""What travels: a file's own bytes where those will do, else a picture that is upright, small enough and whole."""

from __future__ import annotations

import base64
import io
import random

import numpy as np
import pytest
from PIL import Image

from fastgen.backends.remote import pictures
from fastgen.errors import InputError


def noise(size=(64, 48)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def opened(picture: pictures.Picture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data))
    image.load()
    assert picture.mime == pictures.MIME[image.format] and picture.size == image.size
    return image


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_good_files_travel_as_they_are(tmp_path, name):
    noise().save(tmp_path / name)
    found = pictures.prepare(str(tmp_path / name), "images")
    assert found.data == (tmp_path / name).read_bytes() and opened(found).size == (64, 48)
    assert found.name == {"a.png": "image.png", "a.jpg": "image.jpeg"}[name]
    assert base64.b64decode(found.base64()) == found.data


def test_others_are_written_anew(tmp_path):
    noise().save(tmp_path / "a.webp", lossless=True)
    noise().convert("RGBA").save(tmp_path / "rgba.png")
    noise().quantize(16).save(tmp_path / "palette.png")
    Image.fromarray(np.full((48, 64), 40000, np.uint16)).save(tmp_path / "deep.png")
    clear = Image.new("RGBA", (64, 48), (9, 9, 9, 0))
    clear.save(tmp_path / "clear.png")
    for name in ("a.webp", "rgba.png", "palette.png", "deep.png", "clear.png"):
        found = pictures.prepare(str(tmp_path / name), "images")
        assert opened(found).mode == "RGB" and found.mime == "image/png"
    assert opened(pictures.prepare(str(tmp_path / "clear.png"), "images")).getpixel((0, 0)) == (255, 255, 255)
    assert opened(pictures.prepare(str(tmp_path / "deep.png"), "images")).getpixel((0, 0)) == (156, 156, 156)


def test_turned_photographs_arrive_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.png"):
        noise().save(tmp_path / name, exif=exif)
        assert opened(pictures.prepare(str(tmp_path / name), "images")).size == (48, 64)


def test_large_pictures_are_scaled_down(tmp_path):
    noise((300, 200)).save(tmp_path / "photo.png")
    found = pictures.prepare(str(tmp_path / "photo.png"), "images", 15_000)
    assert opened(found).size == (150, 100) and found.mime == "image/jpeg"
    Image.new("RGB", (300, 200), "red").save(tmp_path / "flat.png")
    assert pictures.prepare(str(tmp_path / "flat.png"), "images", 15_000).mime == "image/png"
    noise((3000, 2)).save(tmp_path / "thin.png")
    assert opened(pictures.prepare(str(tmp_path / "thin.png"), "images", 1024)).size[1] == 1


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_files_that_are_cut_short_or_go_on(tmp_path, name):
    noise().save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for cut in (0, 10, len(whole) // 2):
        (tmp_path / name).write_bytes(whole[:cut])
        with pytest.raises(InputError) as caught:
            pictures.prepare(str(tmp_path / name), "images")
        assert caught.value.field == "images"
    (tmp_path / name).write_bytes(whole + b"what a camera adds")
    assert opened(pictures.prepare(str(tmp_path / name), "images")).size == (64, 48)
    with pytest.raises(InputError, match="no such file"):
        pictures.prepare(str(tmp_path / "none"), "images")


def test_masks_turn_white_into_clear(tmp_path):
    mask = Image.new("L", (32, 24), 0)
    mask.paste(255, (0, 0, 16, 24))
    mask.save(tmp_path / "mask.png")
    made = Image.open(io.BytesIO(pictures.mask_for_openai(str(tmp_path / "mask.png"), (64, 48))))
    assert (made.format, made.mode, made.size) == ("PNG", "RGBA", (64, 48))
    assert set(np.unique(np.asarray(made.getchannel("A")))) == {0, 255}
    assert made.getpixel((0, 0))[3] == 0 and made.getpixel((63, 0))[3] == 255
    for bad, why in (((64, 64), "shape"), ((48, 64), "shape")):
        with pytest.raises(InputError, match=why):
            pictures.mask_for_openai(str(tmp_path / "mask.png"), bad)
    Image.new("L", (32, 24), 0).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="selects nothing"):
        pictures.mask_for_openai(str(tmp_path / "mask.png"), (64, 48))


def test_a_png_is_turned_wherever_its_header_says_so(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = random.Random(0).randbytes(9000)  # it stands before the EXIF data
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png", exif=exif, icc_profile=profile)
    assert opened(pictures.prepare(str(tmp_path / "a.png"), "image")).size == (20, 40)
