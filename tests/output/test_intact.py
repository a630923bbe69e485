"""A file that is not what was committed is told from one that is, cheaply where that is enough."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from fastgen.config import stamps
from fastgen.output import intact

FORMATS = ["PNG", "JPEG", "WEBP", "GIF"]


def data_of(format: str, size=(40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(buffer, format)
    return buffer.getvalue()


def written(data: bytes):
    return len(data), stamps.digest(data)


@pytest.fixture(params=FORMATS)
def data(request):
    return data_of(request.param)


def test_what_was_written_is_intact(tmp_path, data, monkeypatch):
    path = tmp_path / "picture"
    path.write_bytes(data)
    assert not intact.fault(path, written(data)) and not intact.fault(path, None)
    monkeypatch.setattr(intact, "fault", None)  # neither reads all of it
    assert intact.is_intact(path, written(data)) and intact.is_intact(path, None)


DAMAGE = {
    "missing": (None, "is missing"),
    "empty": (lambda data: b"", "is empty"),
    "cut": (lambda data: data[: len(data) // 2], "were written"),
    "longer": (lambda data: data + b"\0", "were written"),
    "zeroes": (lambda data: data[:100].ljust(len(data), b"\0"), "its hash is another one"),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["picture", "picture.png", "picture.jpg"])
@pytest.mark.parametrize("known", [True, False], ids=["stamp", "none"])
def test_damage_is_seen(tmp_path, data, how, known, name):
    """Whatever the name says that it is."""
    change, words = DAMAGE[how]
    path = tmp_path / name
    if change:
        path.write_bytes(change(data))
    stamp = written(data) if known else None
    if how == "longer" and not known:
        assert intact.is_intact(path, None), "as an API sent it"
        return
    if how == "zeroes" and not known and data.startswith(b"RIFF"):
        return  # it can be decoded, and nothing says what it was
    assert not intact.is_intact(path, stamp)
    assert words in intact.fault(path, stamp) if known else intact.fault(path, stamp)


def test_a_change_of_the_same_size_is_found_by_its_hash(tmp_path, data):
    path = tmp_path / "picture"
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert "its hash is another one" in intact.fault(path, written(data))


def test_a_picture_that_never_ended_as_others_do_is_not_damaged(tmp_path):
    """Services may add something after the end; such a picture is not to be paid for again."""
    data = data_of("JPEG") + b"trailer"
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    assert intact.is_intact(path, written(data)) and intact.is_intact(path, None)
    path.write_bytes(data[:-1] + b"R")
    assert not intact.is_intact(path, written(data))


def test_what_cannot_be_read(tmp_path):
    assert not intact.is_intact(tmp_path, None) and "cannot be read" in intact.fault(tmp_path, (4096, ""))
    (tmp_path / "text.png").write_bytes(b"no picture")
    assert "cannot be decoded" in intact.fault(tmp_path / "text.png", None)
