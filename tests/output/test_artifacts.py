"""A file is there whole or not at all, and no two rows share one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastgen.errors import DiskError
from fastgen.output import artifacts

ids = st.text(min_size=1, max_size=200) | st.text("aAbB01._-/ #!", min_size=1, max_size=6)
sibling = artifacts.file_name("X", 0, "png").removesuffix("_0.png")


@given(one=ids, two=ids, i=st.integers(0, 999), j=st.integers(0, 999))
@example(one="a", two="A", i=0, j=0)
@example(one="a/b", two="a_b", i=0, j=0)
@example(one="a_1", two="a", i=0, j=10)
@example(one="é", two="e\u0301", i=0, j=0)
@example(one="x" * 100, two="x" * 101, i=0, j=0)
@example(one="X", two=sibling, i=0, j=0)
def test_no_two_pictures_share_a_file(one, two, i, j):
    names = [artifacts.file_name(id, number, "png").casefold() for id, number in ((one, i), (two, j))]
    assert (names[0] == names[1]) == ((one, i) == (two, j))


@given(ids)
@example("../../etc/passwd")
@example(".")
@example("..")
@example("\ud800")
@example("-rf")
def test_a_file_name_is_a_plain_name(id):
    name = artifacts.file_name(id, 12, "png")
    assert name.isascii() and len(name) < 140 and name.endswith("_12.png")
    assert not set(name) & set('/\\\0:*?"<>| \n') and name[0] not in ".-"


def test_plain_ids_stay_readable():
    assert artifacts.file_name("row-7", 0, "png") == "row-7_0.png"


def made(out):
    out.mkdir(exist_ok=True)
    artifacts.clear_partial(out)
    artifacts.prepare(out)
    return out


@pytest.fixture
def out(tmp_path):
    return made(tmp_path / "out")


def left_over(out) -> list:
    return list((out / artifacts.PARTIAL).iterdir())


def test_a_file_appears_when_it_is_whole(out):
    with artifacts.atomic(out, "images/a.png") as file:
        file.write(b"half")
        file.flush()
        assert not (out / "images/a.png").exists()
    assert (out / "images/a.png").read_bytes() == b"half" and not left_over(out)


def test_an_interrupted_write_leaves_the_old_file(out):
    artifacts.write(out, "a.txt", b"old")
    with pytest.raises(KeyboardInterrupt), artifacts.atomic(out, "a.txt") as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert (out / "a.txt").read_bytes() == b"old" and not left_over(out)


def test_a_full_disk_is_a_disk_error(small_disk):
    out = made(small_disk.path)
    artifacts.write(out, "a.bin", b"old")
    with pytest.raises(DiskError, match=r"a\.bin.*No space left"):
        artifacts.write(out, "a.bin", b"x" * 2_000_000)
    assert (out / "a.bin").read_bytes() == b"old" and not left_over(out)


def test_what_a_killed_run_left_half_written_is_cleared(out):
    (out / artifacts.PARTIAL / "half").write_bytes(b"x")
    (out / artifacts.IMAGES / "whole.png").write_bytes(b"x")
    made(out)
    assert not left_over(out) and (out / artifacts.IMAGES / "whole.png").exists()


def test_the_tail_of_a_log(tmp_path):
    log = tmp_path / "log"
    assert artifacts.tail(log) == ""
    log.write_bytes(b"".join(b"line %d\n" % i for i in range(10_000)) + b"\xff\n\n")
    assert artifacts.tail(log, 3).splitlines() == ["line 9999", "\ufffd"]
