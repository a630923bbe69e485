"""Pictures in: upright, RGB, and refused with a reason where they are damaged or dangerous."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from io import BytesIO

import pytest
from PIL import Image, ImageChops

from fastgen.errors import InputError
from fastgen.input.images import encode, load, load_mask, locate, probe, stitch, stitched_width

NOISE = Image.effect_noise((160, 96), 60).convert("RGB")


def saved(path, image, **options) -> str:
    image.save(path, **options)
    return str(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises that many pixels and has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (7, "a path is a string"),
        ("", "empty"),
        ("  ", "empty"),
        ("a\0b", "NUL"),
        ("http://x/a.png", "offline"),
        ("HTTP://169.254.169.254/a.png", "offline"),
        ("file:///etc/passwd", "offline"),
        ("ftp://x/a.png", "offline"),
        ("https://x/a.png", "offline"),
        ("data:image/png;base64,AA", "offline"),
        ("../a.png", "--image-root"),
        ("a/../../b.png", "--image-root"),
        ("..", "--image-root"),
    ],
)
def test_paths_that_are_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as caught:
        locate(text, str(tmp_path), "images")
    assert caught.value.field == "images"


def test_paths_start_at_the_root(tmp_path):
    root = str(tmp_path)
    assert locate("a/b.png", root, "images") == f"{root}/a/b.png"
    assert locate("a/../b.png", root, "images") == f"{root}/b.png"
    assert locate("..b.png", root, "images") == f"{root}/..b.png"
    assert locate("/elsewhere/b.png", root, "images") == "/elsewhere/b.png"
    assert locate("b.png", "/", "images") == "/b.png"


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation(tmp_path, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{format}", NOISE, exif=exif)
    size = (96, 160) if orientation in (6, 8) else (160, 96)
    assert probe(path, "images") == size
    assert load(path, "images").size == size


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_a_cut_picture_is_bad_input_wherever_it_is_cut(tmp_path, format):
    whole = (tmp_path / "whole").with_suffix(f".{format}")
    NOISE.save(whole)
    data = whole.read_bytes()
    cut = tmp_path / f"cut.{format}"
    for length in [0, 1, 8, 20, 40, len(data) // 4, len(data) // 2, len(data) * 3 // 4]:
        cut.write_bytes(data[:length])
        try:
            assert probe(str(cut), "image") == NOISE.size
        except InputError as error:
            assert error.field == "image" and str(cut) in str(error)
        with pytest.raises(InputError):
            load(str(cut), "image")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_the_size_comes_from_the_header_alone(tmp_path, format):
    """Rows are read by the one process that feeds all engines, so it must not decode their pictures."""
    path = tmp_path / f"large.{format}"
    Image.effect_noise((600, 400), 60).convert("RGB").save(path)
    descriptor = os.open(path, os.O_RDWR)
    os.pwrite(descriptor, b"\0" * 5000, path.stat().st_size - 6000)
    os.close(descriptor)
    assert probe(str(path), "images") == (600, 400)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_crash(tmp_path):
    for name, exif in [
        ("a.jpeg", b"Exif\0\0nonsense"),
        ("b.jpeg", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
        ("c.png", b"junk"),
    ]:
        path = saved(tmp_path / name, NOISE, exif=exif)
        for read in (lambda path: probe(path, "images"), lambda path: load(path, "images").size):
            try:
                assert read(path) == NOISE.size
            except InputError as error:
                assert path in str(error)


def test_a_large_picture_within_the_limit_is_taken_without_a_word(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png_header(9500, 10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe(str(path), "images") == (9500, 10_000)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.png", b"", "is empty"),
        ("text.png", b"no picture at all", "not an image"),
        ("bomb.png", png_header(60_000, 60_000), "megapixels"),
        ("big.png", png_header(10_001, 10_000), "megapixels"),
        ("header.png", png_header(64, 64)[:20], "picture|damaged|opened"),
    ],
    ids=["empty", "text", "bomb", "big", "header"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_files_that_are_refused(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    for read in (probe, load):
        with pytest.raises(InputError, match=words) as caught:
            read(str(path), "images")
        assert caught.value.field == "images" and str(path) in str(caught.value)


def test_places_that_are_no_picture(tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path, words in [(tmp_path, "folder"), (tmp_path / "none.png", "no such file"), (pipe, "regular file")]:
        with pytest.raises(InputError, match=words):
            probe(str(path), "images")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    image = Image.new(mode, (8, 8)) if mode == "I;16" else Image.new("RGB", (8, 8), "black").convert(mode)
    picture = load(saved(tmp_path / "a.tiff", image), "images")
    assert picture.mode == "RGB" and picture.size == (8, 8)


def test_floating_point_is_refused_rather_than_guessed_at(tmp_path):
    with pytest.raises(InputError, match=r"floating-point.*8 or 16 bits"):
        load(saved(tmp_path / "a.tiff", Image.new("F", (8, 8), 0.5)), "images")


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (255, 255), (32768, 128), (65535, 255)])
def test_greys_in_32_bits_are_not_clipped(tmp_path, value, grey):
    assert load(saved(tmp_path / "a.tiff", Image.new("I", (8, 8), value)), "images").getpixel((0, 0)) == (grey,) * 3


def test_values_survive(tmp_path):
    deep = load(saved(tmp_path / "deep.png", Image.new("I;16", (4, 4), 65535)), "images")
    assert deep.getpixel((0, 0)) == (255, 255, 255)
    half = load(saved(tmp_path / "half.png", Image.new("I;16", (4, 4), 32768)), "images")
    assert 126 <= half.getpixel((0, 0))[0] <= 129
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert load(saved(tmp_path / "clear.png", clear), "images").getpixel((0, 0)) == (255, 255, 255)
    indexed = Image.new("RGB", (4, 4), "red").convert("P", palette=Image.Palette.ADAPTIVE)
    assert load(saved(tmp_path / "red.png", indexed), "images").getpixel((0, 0)) == (255, 0, 0)
    assert load(saved(tmp_path / "none.png", indexed, transparency=0), "images").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "RGBA", "I;16"])
def test_white_is_repainted(tmp_path, mode):
    white = Image.new("L", (8, 4), 0)
    white.paste(255, (0, 0, 4, 4))
    image = white.point(lambda value: value * 257, "I").convert("I;16") if mode == "I;16" else white.convert(mode)
    mask = load_mask(saved(tmp_path / "mask.png", image), (8, 4))
    assert mask.mode == "L" and ImageChops.difference(mask, white).getbbox() is None


def test_opaque_is_repainted_where_transparency_varies(tmp_path):
    image = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 4))
    mask = load_mask(saved(tmp_path / "mask.png", image), (8, 4))
    assert mask.getbbox() == (0, 0, 4, 4)


def test_a_mask_is_scaled_and_stays_black_and_white(tmp_path):
    image = Image.new("L", (16, 8), 0)
    image.paste(200, (0, 0, 8, 8))
    mask = load_mask(saved(tmp_path / "mask.png", image), (8, 4))
    assert mask.size == (8, 4) and mask.getbbox() == (0, 0, 4, 4) and sorted(set(mask.tobytes())) == [0, 255]


def test_masks_that_are_refused(tmp_path):
    with pytest.raises(InputError, match="selects nothing"):
        load_mask(saved(tmp_path / "black.png", Image.new("L", (8, 4), 0)), (8, 4))
    with pytest.raises(InputError, match="shape of its image"):
        load_mask(saved(tmp_path / "square.png", Image.new("L", (8, 8), 255)), (8, 4))


def test_stitched_side_by_side():
    pictures = [
        Image.new("RGB", (10, 20), "red"),
        Image.new("RGB", (30, 10), "blue"),
        Image.new("RGB", (5, 20), "lime"),
    ]
    sheet = stitch(pictures)
    assert sheet.size == (10 + stitched_width((30, 10), 20) + 5, 20) == (75, 20)
    assert [sheet.getpixel((x, 10)) for x in (5, 40, 72)] == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_encoded_pictures_open_again(format):
    about = {"prompt": "一杯茶 🍵\nzwei", "seed": "7"}
    image = Image.open(BytesIO(encode(NOISE, format, about)))
    image.load()
    assert (image.format.lower(), image.size, image.mode) == (format, NOISE.size, "RGB")
    if format == "png":
        assert {key: image.text[key] for key in about} == about
        assert ImageChops.difference(image, NOISE).getbbox() is None
