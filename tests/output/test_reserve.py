"""Space that is set aside is there when the disk is full, and is never more than the run can spare."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from types import SimpleNamespace

import pytest

from fastgen.errors import DiskError
from fastgen.output import artifacts, reserve
from fastgen.output.reserve import BLOCK, LINE_BYTES, Reserve


@pytest.fixture
def folder(tmp_path):
    artifacts.clear_partial(tmp_path)
    artifacts.prepare(tmp_path)
    return tmp_path


def held(folder) -> tuple[int, int]:
    """(files, bytes) set aside."""
    files = list((folder / reserve.FOLDER).iterdir())
    return len(files), sum(file.stat().st_blocks * 512 for file in files)


def test_a_file_for_each_answer(folder):
    one = Reserve(folder, answers=5, each=10_000, with_files=True)
    files, size = held(folder)
    assert files == 5 and size >= 50_000 and one.capacity == 5 and one.intact
    one.release()
    assert not one.intact and not reserve.is_there(folder) and not reserve.give_back(folder)


def test_captions_need_one_file(folder):
    assert Reserve(folder, answers=300, each=16_000, with_files=False).capacity == 300
    assert held(folder)[0] == 1


def test_it_grows_with_the_answers(folder):
    one = Reserve(folder, answers=4, each=4096, with_files=True)
    (folder / "images/a.png").write_bytes(b"x" * 100_000)
    one.learn(["images/a.png"], 0)
    _, size = held(folder)
    assert size >= 4 * 2 * (100_000 + LINE_BYTES) and one.capacity == 4
    for _ in range(20):
        one.learn(["images/a.png"], 0)
    assert held(folder)[1] == size, "and not with every one"


def test_one_that_was_given_back_does_not_come_again(folder):
    one = Reserve(folder, answers=4, each=4096, with_files=True)
    assert reserve.give_back(folder)
    (folder / "images/a.png").write_bytes(b"x" * 100_000)
    one.learn(["images/a.png"], 0)
    assert not one.intact and not reserve.is_there(folder)


def test_a_small_disk_takes_fewer_answers_at_once(folder, monkeypatch):
    disk = SimpleNamespace(f_frsize=4096, f_bavail=100, f_files=1000, f_favail=1000)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    one = Reserve(folder, answers=80, each=2 << 20, with_files=True)
    assert one.capacity == 1 and held(folder) == (50, 50 * BLOCK), "half of what is free"
    for number in range(8):
        one.learn((), 0)
        assert one.capacity == (25 if number < 7 else 40), "as soon as it is known how small they are"


def test_a_disk_with_few_files_left_takes_fewer_answers_at_once(folder, monkeypatch):
    disk = SimpleNamespace(f_frsize=4096, f_bavail=10_000, f_files=1000, f_favail=20)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    assert Reserve(folder, answers=80, each=4096, with_files=True).capacity == 10


def test_where_none_can_be_set_aside_nothing_is_held_back(folder, monkeypatch):
    def refuse(*args):
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    one = Reserve(folder, answers=80, each=4096, with_files=True)
    assert one.capacity == 80 and one.intact and not reserve.is_there(folder)


def test_pictures_on_a_disk_of_their_own_have_theirs_there(folder):
    (folder / "images/.partial").mkdir()
    one = Reserve(folder, answers=5, each=10_000, with_files=True)
    assert len(list((folder / "images/.partial/reserve").iterdir())) == 5 and one.capacity == 5
    assert (folder / ".partial/reserve/lines").stat().st_size == 5 * LINE_BYTES, "and the journal has its own"
    assert reserve.give_back(folder) and not one.intact and not reserve.is_there(folder)


def test_a_full_disk_takes_what_was_under_way(small_disk):
    """Pictures and journal lines, as many as answers were promised room for."""
    folder = small_disk.path
    artifacts.clear_partial(folder)
    artifacts.prepare(folder)
    one = Reserve(folder, answers=10, each=3 * BLOCK, with_files=True)
    with pytest.raises(OSError, match="No space left"), (folder / "ballast").open("wb", 0) as ballast:
        while ballast.write(b"x" * 4096):
            pass
    assert one.capacity == 10 and one.intact
    for number in range(10):
        artifacts.write(folder, f"images/{number}.png", b"x" * 2 * BLOCK)
    assert not one.intact and len(list((folder / "images").iterdir())) == 10
    with pytest.raises(DiskError, match="No space left"):
        for number in range(10, 100):
            artifacts.write(folder, f"images/{number}.png", b"x" * 2 * BLOCK)


def test_who_comes_while_another_gives_back_waits_until_there_is_room(folder, monkeypatch):
    """The disk stays full until the last file of the reserve is removed."""
    Reserve(folder, answers=4, each=4096, with_files=True)
    removing, go_on = threading.Event(), threading.Event()
    real, refused = shutil.rmtree, []

    def slowly(path, **more):
        removing.set()
        assert go_on.wait(60)
        real(path, **more)

    def fsync(descriptor):
        if (folder / ".partial/given-back").exists():
            refused.append(descriptor)
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "rmtree", slowly)
    first = threading.Thread(target=reserve.give_back, args=(folder,))
    first.start()
    assert removing.wait(60) and reserve.is_there(folder), "it is still to come"
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(time, "sleep", lambda seconds: (go_on.set(), first.join(60)))
    artifacts.write(folder, "images/a.png", b"x")
    assert len(refused) == 1 and (folder / "images/a.png").read_bytes() == b"x"
    first.join()
