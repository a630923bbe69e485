"""What travels: a file's own bytes where those will do, else a picture that is upright, small enough and whole."""

from __future__ import annotations

import base64
import io
import random

import numpy as np
import pytest
from PIL import Image, ImageCms

from fastgen.backends.remote import pictures
from fastgen.errors import InputError
from fastgen.input.masks import load_mask
from fastgen.types import ImageParams, Request
from tests.input.profiles import display_p3


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


def test_one_that_is_asked_about_again_is_encoded_once(tmp_path, monkeypatch):
    path = str(tmp_path / "palette.png")
    noise().quantize(16).save(path)
    made = []
    encoded = pictures._encoded
    monkeypatch.setattr(pictures, "_encoded", lambda *about: made.append(about) or encoded(*about))
    monkeypatch.setattr(pictures, "_recent", pictures.Recent(1 << 20))
    first = pictures.prepare(path, "images")
    assert pictures.prepare(path, "images") == first and len(made) == 1
    assert pictures.prepare(path, "images", 1024).size != first.size and len(made) == 2
    noise().quantize(8).save(path)
    assert pictures.prepare(path, "images") != first and len(made) == 3, "another file under its name"
    few = pictures.Recent(len(first.data) + 1)
    for key in ("a", "b"):
        few.put((key,), first)
    assert few.get(("a",)) is None and few.get(("b",)) is first


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

    def sent(size) -> bytes:
        return pictures.mask_for_openai(load_mask(str(tmp_path / "mask.png"), size).image)

    made = Image.open(io.BytesIO(sent((64, 48))))
    assert (made.format, made.mode, made.size) == ("PNG", "RGBA", (64, 48))
    assert set(np.unique(np.asarray(made.getchannel("A")))) == {0, 255}
    assert made.getpixel((0, 0))[3] == 0 and made.getpixel((63, 0))[3] == 255
    for bad, why in (((64, 64), "shape"), ((48, 64), "shape")):
        with pytest.raises(InputError, match=why):
            sent(bad)
    Image.new("L", (32, 24), 0).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="selects nothing"):
        sent((64, 48))


def test_a_png_is_turned_wherever_its_header_says_so(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = random.Random(0).randbytes(9000)  # it stands before the EXIF data
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png", exif=exif, icc_profile=profile)
    assert opened(pictures.prepare(str(tmp_path / "a.png"), "image")).size == (20, 40)


def test_colours_travel_as_srgb(tmp_path):
    """Servers pass over profiles: what has another one than sRGB is converted, what has that one goes as it is."""
    plain = Image.new("RGB", (40, 20), (185, 71, 51))
    plain.save(tmp_path / "p3.png", icc_profile=display_p3())
    plain.save(tmp_path / "p3.jpg", icc_profile=display_p3(), quality=100, subsampling=0)
    for name in ("p3.png", "p3.jpg"):
        found = opened(pictures.prepare(str(tmp_path / name), "images"))
        assert max(abs(a - b) for a, b in zip(found.getpixel((9, 9)), (200, 60, 40), strict=True)) <= 4
        assert "icc_profile" not in found.info
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise().save(tmp_path / "srgb.png", icc_profile=srgb)
    assert pictures.prepare(str(tmp_path / "srgb.png"), "images").data == (tmp_path / "srgb.png").read_bytes()
    plain.convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert opened(pictures.prepare(str(tmp_path / "cmyk.jpg"), "images")).mode == "RGB"
    noise().save(tmp_path / "junk.png", icc_profile=b"junk")
    found = pictures.prepare(str(tmp_path / "junk.png"), "images")
    assert opened(found).tobytes() == noise().tobytes() and "colour profile cannot be read" in found.notes[0]


def test_a_mask_in_openais_form_stays_one(tmp_path):
    noise().save(tmp_path / "in.png")
    hole = noise().convert("RGBA")
    hole.paste((0, 0, 0, 0), (8, 8, 40, 30))
    hole.save(tmp_path / "hole.png")
    params = ImageParams(0, 0, 1, 1.0, 0, 1)
    about = {"images": (str(tmp_path / "in.png"),), "mask": str(tmp_path / "hole.png")}
    mask = pictures.read_mask(Request("a", "edit", ("b",), params, **about), (64, 48))
    sent = Image.open(io.BytesIO(pictures.mask_for_openai(mask.image)))
    assert sent.getpixel((20, 20))[3] == 0 and sent.getpixel((2, 2))[3] == 255
    said = Request("a", "edit", ("b",), params, mask_convention="opaque_is_edited", **about)
    sent = Image.open(io.BytesIO(pictures.mask_for_openai(pictures.read_mask(said, (64, 48)).image)))
    assert sent.getpixel((20, 20))[3] == 255 and sent.getpixel((2, 2))[3] == 0
