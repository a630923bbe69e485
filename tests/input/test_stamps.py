"""An input picture is another one when its content is, and only then."""

from __future__ import annotations

import os

import pytest

from fastgen.input import stamps
from fastgen.types import ImageParams, Request, TextParams


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1" * 1000)
    os.utime(path, ns=(10**18, 10**18))
    return path


def write(path, data, mtime_ns):
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def test_other_content_is_a_change(picture):
    before = stamps.of_file(str(picture))
    assert before[:2] == (1000, picture.stat().st_ctime_ns) and not stamps.changed(str(picture), before)
    write(picture, b"1" * 500 + b"2" + b"1" * 499, 10**18 + 1)
    assert stamps.changed(str(picture), before)
    write(picture, b"1" * 1001, 10**18)
    assert stamps.changed(str(picture), before)


def test_a_change_that_keeps_size_and_modification_time_is_one(picture):
    before = stamps.of_file(str(picture))
    while picture.stat().st_ctime_ns == before[1]:  # the clock of the file system has steps
        write(picture, b"1" * 500 + b"2" + b"1" * 499, 10**18)
    assert picture.stat().st_mtime_ns == 10**18 and stamps.changed(str(picture), before)


def test_a_copy_is_no_change(picture):
    before = stamps.of_file(str(picture))
    write(picture, b"1" * 1000, 10**18 + 1)
    assert not stamps.changed(str(picture), before)


def test_size_and_time_are_enough_to_read_nothing(picture, monkeypatch):
    before = stamps.of_file(str(picture))
    monkeypatch.setattr(stamps, "_checksum", None)
    assert not stamps.changed(str(picture), before)


@pytest.mark.parametrize("what", ["gone", "folder", "pipe"])
def test_what_cannot_be_read_has_not_changed(picture, what):
    before = stamps.of_file(str(picture))
    picture.unlink()
    if what == "folder":
        picture.mkdir()
    if what == "pipe":
        os.mkfifo(picture)
    assert not stamps.changed(str(picture), before)
    assert stamps.of_file(str(picture)) == stamps.UNKNOWN


def test_what_was_never_read_is_not_compared(picture):
    assert not stamps.changed(str(picture), stamps.UNKNOWN)


def test_of_a_request_all_pictures_count_and_the_mask_is_last(tmp_path):
    for name in "abm":
        (tmp_path / name).write_bytes(name.encode() * 10)
    a, b, m = (str(tmp_path / name) for name in "abm")
    edit = Request("x", "edit", ("p",), ImageParams(64, 64, 4, 0.0, 7, 1), images=(a, b), mask=m)
    assert stamps.of_request(edit) == tuple(stamps.of_file(path) for path in (a, b, m))
    caption = Request("x", "caption", (), TextParams(9, 0.0, 0), images=(a,))
    assert stamps.of_request(caption) == (stamps.of_file(a),)
    assert stamps.of_request(Request("x", "t2i", ("p",), ImageParams(64, 64, 4, 0.0, 7, 1))) == ()
