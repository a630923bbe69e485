"""Pictures in: upright, RGB, and refused with a reason where they are damaged or dangerous."""

from __future__ import annotations

import os
import socket
import struct
import warnings
import zlib
from io import BytesIO

import pytest
from PIL import Image, ImageChops, ImageCms, ImageOps, PngImagePlugin

from fastgen.errors import InputError
from fastgen.input.images import encode, load, load_colors, locate, probe, stitch
from tests.input.profiles import display_p3

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
        (7, "a path as a string"),
        ("", "empty"),
        ("  ", "empty"),
        ("a\0b", "NUL"),
        ("http://x/a.png", "offline"),
        ("HTTP://169.254.169.254/a.png", "offline"),
        ("file://host/etc/passwd", "offline"),
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


def test_addresses_of_files_are_paths(tmp_path):
    for name in ("a b#1.png", "c%20d.png"):
        (tmp_path / name).touch()
    for start in ("file://", "file://localhost"):
        assert locate(f"{start}{tmp_path}/a b#1.png", "/", "image") == f"{tmp_path}/a b#1.png"
        assert locate(f"{start}{tmp_path}/a%20b%231.png", "/", "image") == f"{tmp_path}/a b#1.png"
        assert locate(f"{start}{tmp_path}/c%20d.png", "/", "image") == f"{tmp_path}/c%20d.png", "a name as it is"


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


def test_pictures_lie_where_they_are_put():
    sheet = stitch(
        [Image.new("RGB", (10, 20), "red"), Image.new("RGB", (30, 10), "blue")],
        (48, 16),
        ((0, 0, 32, 16), (32, 0, 16, 8)),
    )
    assert sheet.size == (48, 16) and sheet.getpixel((31, 15)) == (255, 0, 0) and sheet.getpixel((32, 7)) == (0, 0, 255)
    assert sheet.getpixel((32, 8)) == (255, 255, 255)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_encoded_pictures_open_again(format):
    about = {"prompt": "一杯茶 🍵\nzwei", "seed": "7"}
    image = Image.open(BytesIO(encode(NOISE, format, about)))
    image.load()
    assert (image.format.lower(), image.size, image.mode) == (format, NOISE.size, "RGB")
    if format == "png":
        assert {key: image.text[key] for key in about} == about
        assert ImageChops.difference(image, NOISE).getbbox() is None


# Formats that turn themselves, colours, and what is no picture


@pytest.mark.parametrize("format", ["tiff", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_readers_that_turn_pictures_themselves(tmp_path, format, orientation):
    """A picture with four colours in its corners is upright after `load`, and as large as `probe` says."""
    upright = Image.new("RGB", (160, 96), "white")
    for place, color in [((0, 0), "red"), ((120, 0), "lime"), ((0, 56), "blue"), ((120, 56), "black")]:
        upright.paste(Image.new("RGB", (40, 40), color), place)
    lying = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # how to undo each orientation
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = upright if lying is None else upright.transpose(Image.Transpose(lying))
    path = saved(tmp_path / f"a.{format}", image, exif=exif, **({"quality": 100} if format == "avif" else {}))
    found = load(path, "images")
    assert probe(path, "images") == found.size == upright.size
    corners = [found.getpixel(at) for at in ((5, 5), (150, 5), (5, 90), (150, 90))]
    wanted = [upright.getpixel(at) for at in ((5, 5), (150, 5), (5, 90), (150, 90))]
    assert all(
        abs(a - b) < 40 for got, want in zip(corners, wanted, strict=True) for a, b in zip(got, want, strict=True)
    )


class SelfTurning(PngImagePlugin.PngImageFile):
    """As the readers of HEIF and the like may be: decoding turns the picture and clears its orientation."""

    format = "SELF-TURNING"

    def load(self):
        if not getattr(self, "_is_upright", False):
            self._is_upright = True
            super().load()
            ImageOps.exif_transpose(self, in_place=True)
        return super().load()


def test_readers_that_nobody_knows_are_asked(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.png", NOISE, exif=exif)
    monkeypatch.setattr(Image, "open", lambda path: SelfTurning(path))
    assert probe(path, "images") == load(path, "images").size == (96, 160)


def test_deep_grey_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "deep.png", Image.new("I;16", (40, 20), 40000), exif=exif)
    assert probe(path, "images") == load(path, "images").size == (20, 40)


P3 = display_p3()


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
def test_colours_become_srgb(tmp_path, format):
    """(200, 60, 40) of sRGB is (185, 71, 51) in Display P3."""
    image = Image.new("RGB", (32, 32), (185, 71, 51))
    options = {"jpeg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(format, {})
    path = saved(tmp_path / f"a.{format}", image, icc_profile=P3, **options)
    colors = load_colors(path, "images")
    assert max(abs(a - b) for a, b in zip(colors.srgb.getpixel((9, 9)), (200, 60, 40), strict=True)) <= 3
    assert max(abs(a - b) for a, b in zip(colors.own.getpixel((9, 9)), (185, 71, 51), strict=True)) <= 1
    assert colors.profile == P3 and not colors.notes and "icc_profile" not in colors.srgb.info
    back = colors.as_own(colors.srgb).getpixel((9, 9))
    assert max(abs(a - b) for a, b in zip(back, colors.own.getpixel((9, 9)), strict=True)) <= 1
    again = Image.open(BytesIO(encode(colors.own, "png", {}, colors.profile)))
    assert (
        again.info["icc_profile"] == P3
        and "icc_profile" not in Image.open(BytesIO(encode(colors.srgb, "png", {}))).info
    )


def test_profiles_of_srgb_change_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    colors = load_colors(saved(tmp_path / "a.png", NOISE, icc_profile=profile), "images")
    assert colors.srgb is colors.own and colors.own.tobytes() == NOISE.tobytes() and colors.profile == profile


def test_transparency_and_greys_keep_their_profiles_meaning(tmp_path):
    clear = Image.new("RGBA", (8, 8), (185, 71, 51, 255))
    clear.putpixel((0, 0), (1, 2, 3, 0))
    colors = load_colors(saved(tmp_path / "clear.png", clear, icc_profile=P3), "images")
    assert colors.srgb.getpixel((0, 0)) == (255, 255, 255)
    assert max(abs(a - b) for a, b in zip(colors.srgb.getpixel((4, 4)), (200, 60, 40), strict=True)) <= 3
    grey = load_colors(saved(tmp_path / "grey.png", Image.new("L", (8, 8), 128), icc_profile=P3), "images")
    assert grey.srgb.getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("profile", [b"junk", P3[:400], P3[:128] + b"\xff" * 300], ids=["junk", "cut", "broken"])
def test_a_profile_that_cannot_be_read_is_named(tmp_path, profile):
    colors = load_colors(saved(tmp_path / "a.png", NOISE, icc_profile=profile), "images")
    assert colors.srgb.tobytes() == NOISE.tobytes() and colors.profile == b""
    assert len(colors.notes) == 1 and "colour profile cannot be read" in colors.notes[0]


def test_lab_is_read(tmp_path):
    lab = ImageCms.applyTransform(
        Image.new("RGB", (8, 8), (200, 60, 40)),
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )
    found = load(saved(tmp_path / "a.tiff", lab), "images").getpixel((0, 0))
    assert max(abs(a - b) for a, b in zip(found, (200, 60, 40), strict=True)) <= 6


def test_what_is_no_file_is_refused_without_being_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.png"))
        (tmp_path / "link.png").symlink_to("/dev/zero")
        (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
        (tmp_path / "proc.png").symlink_to("/proc/self/mem")
        monkeypatch.setattr("builtins.open", lambda *arguments, **options: pytest.fail("it was opened"))
        paths = [*(str(tmp_path / name) for name in ("fifo.png", "s.png", "link.png", "proc.png"))]
        paths += ["/dev/zero", "/dev/random", "/dev/stdin", "/proc/self/mem", "/proc/kmsg", "/proc/self/environ"]
        for path in paths:
            with pytest.raises(InputError, match=r"not a regular file|no such file|not readable"):
                probe(path, "images")
        with pytest.raises(InputError, match="no such file"):
            probe(str(tmp_path / "loop.png"), "images")


def test_programs_that_draw_are_not_run(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(x) print\n%%EOF\n")
    with pytest.raises(InputError, match="a drawing in EPS"):
        load(str(path), "images")


def test_a_file_larger_than_any_picture_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    NOISE.save(path)
    os.truncate(path, (1 << 30) + 1)
    with pytest.raises(InputError, match=r"has more than 1,024 MiB; scale it down first"):
        probe(str(path), "images")


def test_windows_separators_are_known_for_what_they_are(tmp_path):
    NOISE.save(tmp_path / "a.png")
    with pytest.raises(InputError, match="write it with / instead of"):
        probe(f"{tmp_path}/.\\a.png", "images")


@pytest.mark.parametrize("value", ["A" * 5_000_000, "data:image/png;base64," + "A" * 5_000_000, "\x1b[2J\n" * 5000])
def test_messages_quote_little_of_a_value(tmp_path, value):
    with pytest.raises(InputError) as caught:
        probe(locate(value, str(tmp_path), "images"), "images")
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_heic_and_avif_are_read_upright(tmp_path):
    import pillow_heif

    sheet = Image.new("RGB", (32, 16), "red")
    pillow_heif.from_pillow(sheet).save(tmp_path / "a.heic", quality=100)
    sheet.save(tmp_path / "a.avif", quality=100)
    exif = Image.Exif()
    exif[0x0112] = 6
    sheet.save(tmp_path / "turned.avif", exif=exif)
    for name, size in (("a.heic", (32, 16)), ("a.avif", (32, 16)), ("turned.avif", (16, 32))):
        assert probe(str(tmp_path / name), "image") == load(str(tmp_path / name), "image").size == size
        red, green, _ = load(str(tmp_path / name), "image").getpixel((8, 8))
        assert red > 240 and green < 16
