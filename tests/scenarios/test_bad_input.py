"""Every kind of bad row in one file with good ones: the good are done, the bad are named. And what ends a whole run."""

from __future__ import annotations

import math
import shutil
import subprocess
import zlib

import pytest
from PIL import Image

from fastgen.config.model_cards import TINY

FAKE = ("--backend", "fake", "--gpus", "cpu")
EMOJI = "一杯茶 🍵, ein Tässchen"

# Bad lines or rows, with the field and the mend that the user must read.
T2I = [
    (b'{"prompt": "a fox"', "", "fix the line"),
    (b'["prompt"]', "", "a row is a JSON object such as"),
    (b'{"prompt": "caf\xe9"}', "", "save the file as UTF-8"),
    (rb'{"prompt": "half \ud83d"}', "prompt", "fix the text"),
    ({"note": 1}, "prompt", "give `prompt`, `conversations`"),
    ({"prompt": 7, "images": [""]}, "prompt", "must be a string"),
    ({"conversations": "hello"}, "conversations", "must be a list of turns"),
    ({"prompt": "x" * 200_000}, "prompt", "Shorten it"),
    ({"prompt": "nan", "width": math.nan, "height": 64}, "width", "must be a whole number"),
    ({"prompt": "negative", "width": -64, "height": 64}, "width", "out of range: from 1"),
    ({"prompt": "huge", "width": 65536, "height": 65536}, "width", "the most is"),
    ({"prompt": "odd", "width": 100, "height": 64}, "width", "the nearest size is 96x64"),
    ({"prompt": "words", "size": "large"}, "size", "write it as"),
    ({"prompt": "no", "n": 0}, "n", "from 1 to"),
    ({"prompt": "half", "steps": "x"}, "steps", "must be a whole number"),
    ({"prompt": "cold", "guidance": 10**400}, "guidance", "from 0 to 100"),
    ({"prompt": "low", "seed": -1}, "seed", "from 0 to"),
    ({"prompt": "another", "id": "taken"}, "id", "give each row its own id"),
    ({"prompt": "odd id", "id": 1.5}, "id", "must be a string or a whole number"),
]
GOOD_T2I = [
    {"prompt": "a fox", "id": "taken"},
    {"prompt": EMOJI},
    {"prompt": "same"},
    {"prompt": "same"},
    {"prompt": "sized", "width": 96, "height": 64, "note": [None, 2**64]},
]


def mixed(good, bad):
    """Good and bad rows alternating; the first good one first."""
    lines = [good[0]]
    for number, item in enumerate(bad):
        lines.append(item[0])
        if number + 1 < len(good):
            lines.append(good[number + 1])
    return lines


def check(result, out, table, lines, bad, key):
    """Exit code 3; good rows done with their fields; bad ones named everywhere with row, field and mend."""
    assert result.returncode == 3, result.stderr
    assert "Traceback" not in result.stderr
    rows = table(out / "results.jsonl")
    assert len(rows) == len(lines)
    wanted = {id(item[0]): item[1:] for item in bad}
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), 1):
        about = row["fastgen"]
        if id(line) not in wanted:
            assert about["status"] == "done", row
            assert {name: row[name] for name in line} == line
            assert all((out / path).exists() for path in row[key])
            continue
        field, mend = wanted[id(line)]
        place = f"row {number}, field {field}: " if field else f"row {number}: "
        error = about["error"]
        assert about["status"] == "failed" and error["kind"] == "input" and error.get("field", "") == field
        assert error["message"].startswith(place) and mend in error["message"], error
        assert place in result.stderr and mend in result.stderr
        assert key not in row
    assert table(out / "failures.jsonl") == [row for row in rows if row["fastgen"]["status"] == "failed"]


def test_every_bad_row_of_t2i(cli, rows_file, tmp_path, table):
    lines = mixed(GOOD_T2I, T2I)
    result = cli("t2i", rows_file(lines), "-o", "out", *FAKE)
    check(result, tmp_path / "out", table, lines, T2I, "images")


def test_every_bad_row_of_edit(cli, rows_file, tmp_path, table):
    Image.effect_noise((120, 80), 50).save(tmp_path / "good.png")
    Image.effect_noise((80, 120), 50).save(tmp_path / "good.jpg")
    data = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[:20])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"no picture")
    bomb = bytearray(data)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(bomb)
    (tmp_path / "folder").mkdir()
    bad = [
        ({"prompt": "a", "images": ["missing.png"]}, "images", "check the path and --image-root"),
        ({"prompt": "a", "images": ["good.png", "missing.png"]}, "images", "check the path and --image-root"),
        ({"prompt": "a", "images": ["cut.png"]}, "images", "save it again"),
        ({"prompt": "a", "images": "empty.png"}, "images", "is empty; use PNG"),
        ({"prompt": "a", "images": "text.png"}, "images", "use PNG, JPEG or WebP"),
        ({"prompt": "a", "images": "bomb.png"}, "images", "scale it down first"),
        ({"prompt": "a", "images": "folder"}, "images", "is a folder, not an image"),
        ({"prompt": "a", "images": "folder/../../good.png"}, "images", "give an absolute path or another --image-root"),
        ({"prompt": "a"}, "images", "give a path, or a list of paths"),
        ({"prompt": "a", "images": {"file": "good.png"}}, "images", "a path as a string"),
        ({"prompt": "a", "images": "https://example.invalid/a.png"}, "images", "cannot be fetched"),
        ({"prompt": "a", "images": "good.png", "mask": "missing.png"}, "mask", "check the path and --image-root"),
        ({"images": "good.png"}, "prompt", "give `prompt`, `conversations`"),
        (b'{"images": "good.png"', "", "fix the line"),
    ]
    good = [
        {"prompt": EMOJI, "images": ["good.png"]},
        {"prompt": "a", "image": "good.jpg"},
        {"prompt": "b", "images": ["good.png", "good.jpg"], "n": 2},
        {"prompt": "a", "image": str(tmp_path / "good.jpg")},
    ]
    lines = mixed(good, bad)
    result = cli("edit", rows_file(lines), "-o", "out", *FAKE)
    check(result, tmp_path / "out", table, lines, bad, "edited_images")


def test_more_bad_rows_than_anybody_reads(cli, rows_file, table, tmp_path):
    result = cli("t2i", rows_file([{"prompt": ""}] * 500 + [{"prompt": "a"}]), "-o", "out", *FAKE)
    assert result.returncode == 3 and "row 20," in result.stderr and "row 21," not in result.stderr
    assert "failures.jsonl" in result.stderr and len(table(tmp_path / "out/failures.jsonl")) == 500


# What ends the whole run, before any work


@pytest.fixture
def refused(cli):
    """refused(words, *arguments): exit code 2, one clear message, no traceback."""

    def refused(words, *arguments):
        result = cli("t2i", *arguments)
        assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
        [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert words in line, line

    return refused


def test_inputs_that_are_no_rows(refused, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n\n")
    (tmp_path / "object.json").write_text('{"prompt": "a"}')
    (tmp_path / "broken.json").write_text('[{"prompt": "a"')
    refused("the file is empty", "empty.jsonl", *FAKE)
    refused("holds no rows", "blank.jsonl", *FAKE)
    refused("is a folder; give a .jsonl or .json file", tmp_path, *FAKE)
    refused("no such file", "nowhere.jsonl", *FAKE)
    refused("a .json file holds one list of rows", "object.json", *FAKE)
    refused("a .json file holds one list of rows", "broken.json", *FAKE)


def test_models_that_are_not_there(refused, rows_file, tmp_path):
    rows = rows_file([{"prompt": "a"}])
    refused("--model nonesuch: no such folder", rows, "--model", "nonesuch", "--gpus", "cpu")
    refused("give its folder", rows, "--model", "nobody/nothing", "--gpus", "cpu")
    model = shutil.copytree(TINY, tmp_path / "model")
    (model / "vae/diffusion_pytorch_model.safetensors").unlink()
    refused("no weights in", rows, "--model", model, "--gpus", "cpu")
    (model / "transformer/config.json").unlink()
    refused("transformer/config.json is missing", rows, "--model", model, "--gpus", "cpu")


def test_gpus_that_are_not_there(refused, rows_file):
    refused("there is no GPU 77", rows_file([{"prompt": "a"}]), "--gpus", "77", "--backend", "fake")


def test_places_that_take_no_files(refused, rows_file, tmp_path):
    rows = rows_file([{"prompt": "a"}])
    (tmp_path / "file").touch()
    for out in ("file", "file/out", "/proc/fastgen-out"):
        refused("cannot write there", rows, "-o", out, *FAKE)


def test_a_read_only_disk(refused, rows_file, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("cannot mount a read-only disk")
    try:
        refused("cannot write there: Read-only file system", rows_file([{"prompt": "a"}]), "-o", folder, *FAKE)
        refused("cannot write there: Read-only file system", rows_file([{"prompt": "a"}]), "-o", folder / "new", *FAKE)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_and_on_with_the_same_command(cli, rows_file, table, small_disk):
    rows = rows_file([{"prompt": f"{i}"} for i in range(400)])
    out = small_disk.path / "out"
    full = cli("t2i", rows, "-o", out, *FAKE)
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert "No space left" in full.stderr and "run the same command to continue" in full.stderr
    safe = table(out / "journal.jsonl")
    assert 0 < len(safe) < 400 and not (out / "results.jsonl").exists()
    small_disk.grow()
    assert cli("t2i", rows, "-o", out, *FAKE).returncode == 0
    made = table(out / "journal.jsonl")
    assert made[: len(safe)] == safe and len({line["rec"]["id"] for line in made}) == len(made) == 400
    for row in table(out / "results.jsonl"):
        with Image.open(out / row["images"][0]) as image:
            image.load()
