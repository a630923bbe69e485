"""--fresh moves what is there, all of it, and nothing that the run reads."""

from __future__ import annotations

import errno
import os

import pytest

from fastgen.output import previous

LEFT = ("journal.jsonl", "results.jsonl", "results-1.jsonl", "failures.jsonl", "images/a_0.png", "logs/cpu.log")


@pytest.fixture
def out(tmp_path):
    """A run folder, and something of the user's in it."""
    folder = tmp_path / "out"
    for name in (*LEFT, "run.json", "mine.txt", "results-mine.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def content(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_all_of_a_run_moves_and_nothing_else(out):
    assert previous.move_aside(out) == "previous-1"
    assert content(out / "previous-1") == {name: name for name in (*LEFT, "run.json")}
    left = {name for name in content(out) if not name.startswith("previous")}
    assert left == {"mine.txt", "results-mine.jsonl"}


def test_each_time_into_a_folder_of_its_own(out):
    previous.move_aside(out)
    (out / "journal.jsonl").write_text("second")
    (out / "run.json").write_text("second")
    assert previous.move_aside(out) == "previous-2"
    assert (out / "previous-1/journal.jsonl").read_text() == "journal.jsonl"
    assert (out / "previous-2/journal.jsonl").read_text() == "second"


def test_where_no_result_is_nothing_moves(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "journal.jsonl").touch()
    assert previous.move_aside(tmp_path) == "" and (tmp_path / "run.json").exists()


@pytest.mark.parametrize("moves", range(1, 7))
def test_a_move_that_was_cut_short_goes_on_where_it_was(out, monkeypatch, moves):
    rename, done = os.rename, []

    def disturbed(source, target):
        if len(done) == moves:
            raise OSError(errno.EIO, "disturbed")
        done.append(source)
        rename(source, target)

    with monkeypatch.context() as broken, pytest.raises(OSError, match="disturbed"):
        broken.setattr(os, "rename", disturbed)
        previous.move_aside(out)
    assert not (out / "journal.jsonl").exists(), "a run that goes on here must see that something is missing"
    assert (out / "run.json").exists()
    if previous.move_aside(out):
        assert content(out / "previous-1") == {name: name for name in (*LEFT, "run.json")}
    assert not (out / "previous-2").exists()


def test_a_folder_of_the_users_is_not_mixed_with_it(out):
    (out / "previous-3").mkdir()
    (out / "previous-3/mine.txt").touch()
    assert previous.move_aside(out) == "previous-4"


def test_images_on_another_disk_stay_there(out, tmp_path):
    disk = tmp_path / "disk"
    os.rename(out / "images", disk)
    os.symlink(disk, out / "images")
    assert previous.move_aside(out) == "previous-1"
    assert (out / "previous-1/images/a_0.png").read_text() == "images/a_0.png"
    assert (out / "images").is_symlink() and not list(previous.images(out))
    assert (disk / "previous-1/a_0.png").exists()
    (disk / "b_0.png").write_text("second")
    assert previous.move_aside(out) == "previous-2"
    assert (out / "previous-2/images/b_0.png").read_text() == "second"
    assert (out / "previous-1/images/a_0.png").exists()


@pytest.fixture
def read_by(settings, rows_file, out):
    """read_by(task, rows or INPUT): what the run reads of what would move, relative to the run folder."""

    def read_by(task, input, **flags):
        path = rows_file(input) if isinstance(input, list) else input
        found = previous.read_by(settings(task, path, **flags), str(path), out)
        return os.path.relpath(found, out) if found else ""

    return read_by


def test_rows_may_name_its_images(read_by, out, tmp_path):
    inside = out / "images/a_0.png"
    assert read_by("edit", [{"prompt": "p", "image": "other.png"}, {"prompt": "p", "image": str(inside)}]) == (
        "images/a_0.png"
    )
    assert read_by("edit", [{"prompt": "p", "images": ["x.png", "out/images/a_0.png"]}]) == "images/a_0.png"
    assert read_by("edit", [{"prompt": "p", "image": "x.png", "mask": "out/images/a_0.png"}]) == "images/a_0.png"
    assert read_by("caption", [{"image": "out/images/a_0.png"}]) == "images/a_0.png"
    (tmp_path / "link").symlink_to(out)
    assert read_by("caption", [{"image": "link/images/a_0.png"}]) == "../link/images/a_0.png"
    os.symlink(inside, tmp_path / "linked.png")
    assert read_by("caption", [{"image": "linked.png"}]) == "../linked.png"
    assert read_by("edit", [b"{", {"prompt": "p", "image": "mine.png"}, {"prompt": "p"}]) == ""
    assert read_by("t2i", [{"prompt": "p", "image": str(inside)}]) == "", "which does not read it"


def test_input_may_lie_in_it(read_by, out, tmp_path):
    assert read_by("caption", out / "images") == "images"
    (out / "results-1.jsonl").write_text('{"prompt": "p"}\n')
    assert read_by("t2i", out / "results-1.jsonl") == "results-1.jsonl"
    (out / "mine.jsonl").write_text('{"prompt": "p"}\n')
    assert read_by("t2i", out / "mine.jsonl") == ""
    assert read_by("caption", tmp_path) == "images/a_0.png", "a folder of pictures that the run folder is in"


def test_weights_may_lie_in_it(read_by, out):
    (out / "images/style.safetensors").write_bytes(b"x")
    lora = str(out / "images/style.safetensors")
    assert read_by("t2i", [{"prompt": "p"}], lora=[lora]) == "images/style.safetensors"
