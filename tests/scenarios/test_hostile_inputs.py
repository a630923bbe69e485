"""Files and values that nobody should send, all in one run with good rows: each is named, and no other row is harmed.

One run of the real engine on the embedded model; then a test for each case looks at what became of it.
"""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

LONG = 300_000
"""Characters; of none of them more than 200 are to be quoted."""


class Case(NamedTuple):
    name: str
    row: dict | bytes
    field: str
    """Of the error; "" for the row as a whole."""
    words: str
    """In the error; where `done`, in the row's warnings ("" for none)."""
    done: bool = False


def picture(path: str, words: str, field: str = "image") -> Case:
    return Case(f"picture {path[:40]}", {"image": path, "prompt": "make it blue"}, field, words)


def masked(mask: object, words: str, field: str = "mask", **more) -> Case:
    row = {"image": "good.png", "mask": mask, "prompt": "make it blue", **more}
    return Case(f"mask {str(mask)[:30]} {' '.join(map(str, more.values()))}", row, field, words)


def value(name: str, given: object, words: str, field: str = "") -> Case:
    row = {"image": "good.png", "prompt": "make it blue", name: given}
    return Case(f"{name} {str(given)[:30]}", row, field or name, words)


def line(name: str, raw: bytes, words: str, field: str = "") -> Case:
    return Case(f"line: {name}", raw, field, words)


CASES = [
    # Files
    picture("missing.png", "no such file"),
    picture("empty.png", "is empty"),
    picture("text.png", "not an image"),
    picture("page.png", "not an image"),
    picture("archive.png", "not an image"),
    picture("drawing.svg", "not an image"),
    picture("program.png", "a drawing in EPS"),
    picture("header.png", "save it again"),
    picture("cut.png", "cut short"),
    picture("cut.jpg", "cut short"),
    picture("cut.webp", "save it again"),
    picture("cut.gif", "save it again"),
    picture("checksum.png", "not an image"),
    picture("bomb.png", "megapixels"),
    picture("large.png", "megapixels"),
    picture("text-bomb.png", "save it again"),
    picture("sparse.png", "the most is 1,024 MiB"),
    picture("float.tiff", "floating-point"),
    picture("loop.tiff", "not an image"),
    picture("folder.png", "is a folder"),
    picture("pipe.png", "not a regular file"),
    picture("socket.png", "not a regular file"),
    picture("link-to-pipe.png", "not a regular file"),
    picture("link-to-device.png", "not a regular file"),
    picture("dangling.png", "no such file"),
    picture("circle.png", "no such file"),
    picture("/dev/zero", "not a regular file"),
    picture("/dev/stdin", "regular file"),
    picture("/proc/self/mem", "not a regular file"),
    picture("/proc/self/environ", "not a regular file"),
    picture("/etc/passwd", "not an image"),
    # Values where a picture is to be
    picture("", "no image", "images"),
    picture("   ", "the path is empty"),
    picture("good.png\0", "NUL"),
    picture("A" * LONG, "no such file"),
    picture("data:image/png;base64," + "A" * LONG, "works offline"),
    picture("https://example.com/" + "a" * LONG, "works offline"),
    picture("file:///etc/passwd", "works offline"),
    picture("../" * 50 + "etc/passwd", "leads out of"),
    picture("\x1b[2J\x07\r\n.png", "no such file"),
    picture(".\\good.png", "write it with /"),
    picture("half \ud83d.png", "half of a character"),
    picture("bad\udcff.png", "rename the file"),
    value("image", ["good.png"] * 17, "17 images"),
    value("image", [["good.png"]], "must be a string"),
    value("image", {"bytes": "A" * LONG, "path": None}, "must be a string"),
    value("image", 7, "must be a string"),
    value("image", True, "must be a string"),
    # Masks
    masked("missing.png", "no such file"),
    masked("pipe.png", "not a regular file"),
    masked("cut.png", "cut short"),
    masked("black.png", "selects nothing"),
    masked("wide-mask.png", "the shape of its image"),
    masked("hole.png", "could mean either"),
    masked("black.png", "give only one of them", "mask_image", mask_image="white.png"),
    masked("white.png", "white_is_edited", "mask_convention", mask_convention="A" * LONG),
    masked("white.png", "only transparent pixels", "mask", mask_convention="transparent_is_edited"),
    masked({"path": "white.png"}, "must be a string"),
    Case("a mask of everything", masked("white.png", "").row, "", "the whole image", done=True),
    Case("a soft mask", masked("soft.png", "").row, "", "pixels are grey", done=True),
    Case("a profile of junk", picture("profile.png", "").row, "", "colour profile cannot be read", done=True),
    # Other fields
    value("prompt", "x" * LONG, "300,000 characters"),
    value("prompt", "half \ud83d", "half of a character"),
    value("prompt", "<image>", "no text from the user"),
    value("prompt", {"text": "a"}, "must be a string"),
    value("prompt", ["x" * LONG], "must be a string"),
    value("id", "x" * LONG, "1 to 512 characters"),
    value("id", {"a": "b"}, "string or a whole number"),
    value("id", "half \ud83d", "half of a character"),
    Case("id ../../etc/passwd", value("id", "../../etc/passwd", "").row, "", "", done=True),
    value("size", "9" * 5000 + "x64", "1024x768"),
    value("size", "x" * LONG, "1024x768"),
    value("size", [64, 10**30], "out of range"),
    value("steps", 10**4000, "out of range"),
    value("steps", "9" * LONG, "whole number"),
    value("n", 10**9, "out of range"),
    value("seed", -1, "out of range"),
    value("guidance", float("nan"), "out of range"),
    # Lines
    line("cut", b'{"image": "good.png", "prompt": "make', "not valid JSON"),
    line("not UTF-8", b'{"image": "good.png", "prompt": "caf\xe9"}', "UTF-8"),
    line("zeros", b"\0" * 100, "not valid JSON"),
    line("a list", b'["good.png", "make it blue"]', "a row is a JSON object"),
    line("a text with escapes", b'"\\u001b[2J' + b"x" * LONG + b'"', "a row is a JSON object"),
    line("brackets", b"[" * 100_000, "not valid JSON"),
    line("brackets in a field", b'{"prompt": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON"),
    line("digits", b'{"prompt": "a", "x": ' + b"9" * 100_000 + b"}", "not valid JSON"),
    line("65 MiB", b'{"prompt": "' + b"x" * (65 << 20) + b'"}', "longer than 64 MiB"),
]
GOOD = {"image": "good.png", "prompt": "make it blue"}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def promising(width: int, height: int, more: bytes = b"") -> bytes:
    """A PNG that promises that many pixels and has none."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write_files(folder: Path) -> None:
    noise = Image.effect_noise((128, 128), 60).convert("RGB")
    noise.save(folder / "good.png")
    for name in ("png", "jpg", "webp", "gif"):
        noise.save(folder / f"whole.{name}")
        data = (folder / f"whole.{name}").read_bytes()
        (folder / f"cut.{name}").write_bytes(data[: len(data) // 3])
    data = bytearray((folder / "good.png").read_bytes())
    (folder / "header.png").write_bytes(data[:20])
    data[16:20] = (64).to_bytes(4, "big")  # another width, the old checksum
    (folder / "checksum.png").write_bytes(data)
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no picture")
    (folder / "page.png").write_text("<!doctype html><title>404</title>")
    (folder / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>')
    (folder / "archive.png").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    (folder / "program.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(x) run\n")
    (folder / "bomb.png").write_bytes(promising(60_000, 60_000))
    (folder / "large.png").write_bytes(promising(10_001, 10_000))
    (folder / "text-bomb.png").write_bytes(
        promising(64, 64, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * (1 << 27))))
    )
    noise.save(folder / "sparse.png")
    os.truncate(folder / "sparse.png", (1 << 30) + 1)
    Image.new("F", (64, 64)).save(folder / "float.tiff")
    (folder / "loop.tiff").write_bytes(b"II*\0\x08\0\0\0\x01\0\0\x01\x03\0\xff\xff\xff\xff\x08\0\0\0\x08\0\0\0")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "link-to-pipe.png").symlink_to("pipe.png")
    (folder / "link-to-device.png").symlink_to("/dev/zero")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "circle.png").symlink_to("circle.png")
    noise.save(folder / "profile.png", icc_profile=b"junk")
    Image.new("L", (128, 128), 0).save(folder / "black.png")
    Image.new("L", (128, 128), 255).save(folder / "white.png")
    Image.new("L", (256, 128), 255).save(folder / "wide-mask.png")
    hole = Image.new("RGBA", (128, 128), "black")
    hole.paste((0, 0, 0, 0), (30, 30, 60, 60))
    hole.save(folder / "hole.png")
    soft = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(soft).ellipse((40, 40, 90, 90), 255)
    soft.filter(ImageFilter.GaussianBlur(9)).save(folder / "soft.png")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run folder, and what the command said."""
    folder = tmp_path_factory.mktemp("hostile")
    write_files(folder)
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket may not be long
        listening.bind("socket.png")
        os.chdir(here)
        with (folder / "rows.jsonl").open("wb") as file:
            for case in CASES:
                raw = case.row if isinstance(case.row, bytes) else json.dumps(case.row).encode()
                file.write(json.dumps(GOOD).encode() + b"\n" + raw + b"\n")
        command = [
            sys.executable,
            "-m",
            "fastgen",
            "edit",
            "rows.jsonl",
            "-o",
            "out",
            "--model",
            "tiny",
            "--gpus",
            "cpu",
        ]
        said = subprocess.run(
            [*command, "--steps", "1"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
    assert "Traceback" not in said.stderr and said.returncode == 3, said.stderr[-3000:]
    return folder / "out", said.stderr


@pytest.fixture(scope="module")
def table(run) -> list[dict]:
    lines = (run[0] / "results.jsonl").read_bytes().split(b"\n")[:-1]
    rows = [json.loads(line, parse_int=str) for line in lines]  # one of them has more digits than Python reads
    assert len(rows) == 2 * len(CASES)
    return rows


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_it_is_named(table, number):
    case, row = CASES[number], table[2 * number + 1]
    about = row["fastgen"]
    if case.done:
        assert about["status"] == "done", about
        assert case.words in " ".join(about.get("warnings", []))
        return
    assert about["status"] == "failed" and "edited_images" not in row
    error = about["error"]
    assert (error["kind"], error.get("field", "")) == ("input", case.field), error
    assert case.words in error["message"] and len(error["message"]) < 700
    assert error["message"].isprintable(), "nothing that a terminal would obey"
    place = f"row {2 * number + 2}" + (f", field {case.field}: " if case.field else ": ")
    assert error["message"].startswith(place)
    for long in ("A" * 201, "x" * 201, "9" * 201, "a" * 201):
        assert long not in error["message"]


def test_there_are_enough_of_them():
    assert len(CASES) >= 40 and len({case.name for case in CASES}) == len(CASES)


def test_the_good_rows_are_done_and_alike(run, table):
    good = table[::2]
    assert all(row["fastgen"]["status"] == "done" and row["prompt"] == GOOD["prompt"] for row in good)
    assert len({path for row in good for path in row["edited_images"]}) == len(CASES)
    for row in good[:3]:
        assert np.asarray(Image.open(io.BytesIO((run[0] / row["edited_images"][0]).read_bytes()))).shape == (
            128,
            128,
            3,
        )


def test_nothing_is_flooded_and_nothing_lies_elsewhere(run):
    out, said = run
    assert len(said) < 100_000 and (out / "journal.jsonl").stat().st_size < 300_000
    assert sum(path.stat().st_size for path in (out / "logs").iterdir()) < 100_000
    outside = {path.name for path in out.parent.iterdir()}
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"images", "logs"}
    assert not [name for name in outside if "passwd" in name]


def test_names_of_files_that_are_no_text(tmp_path):
    """A folder of pictures with such a name: the others are captioned."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "pictures" / "good.png")
    os.link(tmp_path / "pictures" / "good.png", os.fsencode(tmp_path / "pictures") + b"/bad\xff.png")
    from fastgen.api import generate
    from fastgen.resolver import resolve

    settings = resolve("caption", tmp_path / "pictures", out=tmp_path / "out", backend="fake", gpus="cpu")
    found = {type(result).__name__: result for result in generate(settings)}
    assert found["Done"].text == "1 pictures"
    assert "bad\\udcff.png is not UTF-8; rename the file" in found["Failed"].message
