"""Images for a browser: small ones are made once, and what is no image is given to nobody."""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image

from fastgen.errors import InputError
from fastgen.view import pictures
from fastgen.view.pictures import THUMBNAIL_PX, Thumbnails, full
from tests.view.folders import image


def opened(picture):
    return Image.open(io.BytesIO(picture.data))


def test_a_small_image_is_made_once(tmp_path):
    path = image(tmp_path / "a.png", size=(1200, 600))
    thumbnails = Thumbnails(tmp_path / "cache")
    first = thumbnails.get(str(path))
    assert opened(first).size == (THUMBNAIL_PX, THUMBNAIL_PX // 2) and first.media_type == "image/webp"
    assert Thumbnails(tmp_path / "cache").get(str(path)) == thumbnails.get(str(path)) == first and thumbnails.made == 1
    image(path, "blue", size=(1200, 601))
    os.utime(path, (1, 1))
    assert thumbnails.get(str(path)) != first and thumbnails.made == 2


def test_the_cache_is_outside_of_the_run_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTGEN_HOME", str(tmp_path / "home"))
    assert Thumbnails().folder == tmp_path / "home/thumbnails"


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path):
    path = image(tmp_path / "a.png", size=(800, 800))
    (tmp_path / "cache").write_text("a file")
    assert opened(Thumbnails(tmp_path / "cache").get(str(path))).size == (THUMBNAIL_PX, THUMBNAIL_PX)


def test_what_is_small_already_is_given_as_it_is(tmp_path):
    path = image(tmp_path / "a.png")
    thumbnails = Thumbnails(tmp_path / "cache")
    assert thumbnails.get(str(path)).data == path.read_bytes() and not thumbnails.made


def test_the_oldest_leave_the_cache_first(tmp_path):
    thumbnails = Thumbnails(tmp_path / "cache")
    paths = [str(image(tmp_path / f"{k}.png", color, (900, 900))) for k, color in enumerate(("red", "green", "blue"))]
    for k, path in enumerate(paths):
        thumbnails.get(path)
        newest = max(thumbnails.folder.rglob("*.webp"), key=lambda p: p.stat().st_mtime_ns)
        os.utime(newest, (k, k))
    size = sum(path.stat().st_size for path in thumbnails.folder.rglob("*.webp"))
    thumbnails.prune(size - 1)
    for path in paths[1:]:
        thumbnails.get(path)
    assert thumbnails.made == 3
    thumbnails.get(paths[0])
    assert thumbnails.made == 4


def test_browsers_get_the_bytes_of_formats_that_they_show(tmp_path):
    for suffix, media_type in (("png", "image/png"), ("jpg", "image/jpeg"), ("webp", "image/webp")):
        path = image(tmp_path / f"a.{suffix}")
        assert full(str(path)).data == path.read_bytes() and full(str(path)).media_type == media_type
    picture = full(str(image(tmp_path / "a.tif")))
    assert picture.media_type == "image/png" and opened(picture).size == (48, 48)


@pytest.mark.parametrize(
    "content", [b"root:x:0:0\n", b"\x89PNG\r\n\x1a\n but a secret", b"<svg onload='alert(1)'/>", b""], ids=repr
)
def test_what_is_no_image_is_given_to_nobody(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    for give in (full, Thumbnails(tmp_path / "cache").get):
        with pytest.raises(InputError):
            give(str(tmp_path / "a.png"))


def test_pipes_and_folders_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "nowhere", "/dev/zero", "nul\0"):
        for give in (full, Thumbnails(tmp_path / "cache").get):
            with pytest.raises(InputError):
                give(str(path))


def test_only_some_are_decoded_at_the_same_time():
    assert pictures._AT_ONCE._value == 2
