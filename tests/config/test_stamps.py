"""A file is known by all that is in it, and read no more often than it must."""

from __future__ import annotations

import json
import os
import time

import pytest

from fastgen.config import stamps


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "stamps"


@pytest.fixture
def reads(monkeypatch):
    """The sizes of all files that were hashed."""
    seen = []
    hashing = stamps._hash_pieces
    monkeypatch.setattr(stamps, "_hash_pieces", lambda path, size: seen.append(size) or hashing(path, size))
    return seen


def large(path, size=stamps.KEPT_FROM + 10):
    """A file that was written long ago, as far as its times say."""
    path.write_bytes(os.urandom(1 << 16).ljust(size, b"\0"))
    return path


def grown_old(monkeypatch):
    now = time.time
    monkeypatch.setattr(stamps.time, "time", lambda: now() + 3600)


@pytest.mark.parametrize("size", [3_000_000, 2 * stamps.PIECE + 5])
def test_a_change_in_the_middle_is_seen(tmp_path, size):
    file = large(tmp_path / "style.safetensors", size)
    before, ends = stamps.stamp(file), stamps.ends(file)
    with file.open("r+b") as written:
        written.seek(size // 2)
        written.write(b"\1")
    assert stamps.stamp(file) != before and stamps.ends(file) == ends
    with file.open("r+b") as written:
        written.seek(size // 2)
        written.write(b"\0")
    assert stamps.stamp(file) == before, "the same content is the same file"


def test_a_large_file_is_read_once(tmp_path, reads, monkeypatch, cache):
    file = large(tmp_path / "large.safetensors")
    grown_old(monkeypatch)
    first = stamps.stamp(file)
    assert stamps.stamp(file) == first and len(reads) == 1 and len(list(cache.iterdir())) == 1
    times = file.stat()
    with file.open("r+b") as written:
        written.seek(stamps.KEPT_FROM // 2)
        written.write(b"\1")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert stamps.stamp(file) != first, "whoever sets the time of change back does not hide a change"


def test_what_was_written_just_now_is_not_trusted_later(tmp_path, reads, cache):
    file = large(tmp_path / "new.safetensors")
    stamps.stamp(file)
    stamps.stamp(file)
    assert len(reads) == 2 and not cache.exists()


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"hash": 7}', '{"hash": "../x"}'])
def test_a_damaged_cache_is_read_anew(tmp_path, reads, monkeypatch, cache, damage):
    file = large(tmp_path / "large.safetensors")
    grown_old(monkeypatch)
    first = stamps.stamp(file)
    [kept] = cache.iterdir()
    good = json.loads(kept.read_text())
    kept.write_text(damage if not damage.startswith('{"hash"') else json.dumps(good | json.loads(damage)))
    assert stamps.stamp(file) == first and len(reads) == 2
    assert stamps.stamp(file) == first and len(reads) == 2


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_HOME", "/proc/nowhere")
    file = large(tmp_path / "large.safetensors")
    grown_old(monkeypatch)
    assert stamps.stamp(file) == stamps.stamp(file)


def test_both_kinds_are_told_apart(tmp_path):
    file = large(tmp_path / "a.safetensors", 100)
    assert stamps.has_ends(f"/a:1.0 ({stamps.ends(file)})") and not stamps.has_ends(f"/a:1.0 ({stamps.stamp(file)})")
    named_so = f"/a ({stamps.ends(file)}) b"
    assert not any(map(stamps.has_ends, (named_so, f"{named_so}:1.0 ({stamps.stamp(file)})", "", None, 7)))


def test_a_model_folder_is_known_by_all_that_is_in_it(tmp_path):
    folder = tmp_path / "model"
    (folder / "vae").mkdir(parents=True)
    (folder / "README.md").write_text("a")
    file = large(folder / "vae" / "weights.safetensors", 3_000_000)
    before, by_ends = stamps.of_folder(folder), stamps.of_folder(folder, stamps.ends)
    (folder / "README.md").write_text("b")
    assert stamps.of_folder(folder) == before, "a text changes no image"
    with file.open("r+b") as written:
        written.seek(1_500_000)
        written.write(b"\1")
    assert stamps.of_folder(folder) != before and stamps.of_folder(folder, stamps.ends) == by_ends
    assert stamps.is_folder_by_ends(by_ends) and not any(map(stamps.is_folder_by_ends, (before, "fake", None, 7)))


def test_files_of_the_hubs_cache_are_known_by_their_names(tmp_path, reads):
    blob = tmp_path / "blobs" / ("5" * 64)
    blob.parent.mkdir()
    large(blob)
    folder = tmp_path / "snapshots" / "main"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").symlink_to(blob)
    first = stamps.of_folder(folder)
    assert reads == []
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(blob.rename(blob.with_name("6" * 64)))
    assert stamps.of_folder(folder) != first
