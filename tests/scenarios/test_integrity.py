"""What is committed stays what it was: two inputs in a folder, damage, changed inputs, edits of what a run made."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fastgen.api import explain
from fastgen.errors import RunFolderError

FAKE = ("--backend", "fake", "--gpus", "cpu")


def picture(path: Path, color: str, size=(64, 48)) -> str:
    Image.new("RGB", size, color).save(path)
    return str(path)


def warnings(outcome) -> list[str]:
    return [event["message"] for event in outcome.events if event["event"] == "warning"]


def paths(outcome) -> dict[str, list[str]]:
    key = "edited_images" if "edited_images" in outcome.table[0] else "images"
    return {row["id"]: row[key] for row in outcome.table}


@pytest.fixture
def t2i(settings, rows_file, go):
    """t2i({id: prompt}, input="rows.jsonl", **flags): a run of these rows in the one folder."""

    def t2i(rows, input="rows.jsonl", **flags):
        given = [{"id": id, "prompt": prompt, **more} for id, (prompt, more) in _split(rows).items()]
        return go(settings("t2i", rows_file(given, input), **flags))

    return t2i


def _split(rows):
    return {id: row if isinstance(row, tuple) else (row, {}) for id, row in rows.items()}


# Two inputs, one folder


def test_a_second_input_with_the_same_ids_overwrites_nothing(t2i):
    first = t2i({"1": ("a", {"size": "96x64"}), "2": "same"}, "a.jsonl")
    before = {path: (first.out / path).read_bytes() for path in ("images/1_0.png", "images/2_0.png")}
    second = t2i({"1": ("b", {"size": "64x96"}), "2": "same"}, "b.jsonl")
    assert list(second.results) == ["1"], "a row that says the same is not made again"
    assert {path: (first.out / path).read_bytes() for path in before} == before
    kept = [json.loads(line) for line in (first.out / "results-1.jsonl").read_text().splitlines()]
    assert [row["images"] for row in kept] == [["images/1_0.png"], ["images/2_0.png"]]
    [own] = paths(second)["1"]
    assert own.startswith("images/1-") and Image.open(first.out / own).size == (64, 96)


def test_going_back_and_forth_makes_nothing_twice(t2i):
    rows = {"a.jsonl": {"1": "a", "2": "x"}, "b.jsonl": {"1": "b", "2": "y"}}
    first = {name: paths(t2i(rows[name], name)) for name in rows}
    for name in ("a.jsonl", "b.jsonl", "a.jsonl"):
        again = t2i(rows[name], name)
        assert not again.results and paths(again) == first[name]
    assert len({path for table in first.values() for one in table.values() for path in one}) == 4


def test_an_input_that_moved_or_grew_goes_on(t2i):
    first = t2i({"1": "a", "2": "b"})
    moved = t2i({"2": "b", "1": "a", "3": "c"}, "moved.jsonl")
    assert list(moved.results) == ["3"] and paths(moved) == {**paths(first), "3": ["images/3_0.png"]}


def test_a_row_that_says_something_new_keeps_its_old_picture(t2i):
    first = t2i({"1": "old", "2": "same"})
    written = (first.out / "images/1_0.png").stat().st_mtime_ns
    second = t2i({"1": "new", "2": "same"})
    assert paths(second)["1"] != ["images/1_0.png"] and paths(second)["2"] == ["images/2_0.png"]
    assert (first.out / "images/1_0.png").stat().st_mtime_ns == written


def test_a_folder_in_place_of_a_picture_is_left_alone(t2i):
    first = t2i({"1": "a", "2": "b"})
    (first.out / "images/1_0.png").unlink()
    (first.out / "images/1_0.png").mkdir()
    second = t2i({"1": "a", "2": "b"})
    assert list(second.results) == ["1"] and paths(second)["2"] == ["images/2_0.png"]
    assert (first.out / paths(second)["1"][0]).is_file() and (first.out / "images/1_0.png").is_dir()


def test_a_killed_run_leaves_no_other_names(t2i, tmp_path):
    """What was written and never committed is written over, so the table is that of a calm run."""
    t2i({"1": "a"}, "a.jsonl")
    t2i({"1": "b", "2": "b"}, "b.jsonl")
    lines = (tmp_path / "out/journal.jsonl").read_bytes().splitlines(keepends=True)
    expected = [json.loads(line)["images"] for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    (tmp_path / "out/journal.jsonl").write_bytes(lines[0])
    again = t2i({"1": "b", "2": "b"}, "b.jsonl")
    assert [row["images"] for row in again.table] == expected and len(again.results) == 2
    assert len(list((tmp_path / "out/images").iterdir())) == 3


# Edits that start from what a run made


def test_a_chained_edit_does_not_overwrite_what_it_starts_from(settings, rows_file, go, tmp_path):
    picture(tmp_path / "in.png", "red")
    first = go(settings("edit", rows_file([{"id": "1", "prompt": "night", "image": "in.png"}])))
    before = (first.out / "images/1_0.png").read_bytes()
    for number in range(2):
        chained = [{"id": "1", "prompt": f"snow {number}", "image": "out/images/1_0.png"}]
        second = go(settings("edit", rows_file(chained, "chained.jsonl")))
        assert second.counts["done"] == 1 and paths(second)["1"] != ["images/1_0.png"]
    assert (first.out / "images/1_0.png").read_bytes() == before


def test_nor_a_picture_that_nobody_knows(settings, rows_file, go, tmp_path):
    first = go(settings("edit", rows_file([{"id": "2", "prompt": "p", "image": picture(tmp_path / "in.png", "red")}])))
    mine = picture(first.out / "images/1_0.png", "blue")
    before = Path(mine).read_bytes()
    (tmp_path / "link").symlink_to(first.out)
    for image in (mine, "link/images/1_0.png"):
        outcome = go(settings("edit", rows_file([{"id": "1", "prompt": image, "image": image}], "next.jsonl")))
        assert outcome.counts["done"] == 1 and paths(outcome)["1"] != ["images/1_0.png"]
        assert Path(mine).read_bytes() == before


# Damage


def test_damaged_pictures_are_made_again_and_that_is_said(t2i):
    rows = {str(i): f"p {i}" for i in range(6)}
    first = t2i(rows)
    images = first.out / "images"
    (images / "1_0.png").unlink()
    (images / "2_0.png").write_bytes(b"")
    os.truncate(images / "3_0.png", 40)
    (images / "4_0.png").write_bytes(b"\0" * (images / "4_0.png").stat().st_size)
    second = t2i(rows)
    assert sorted(second.results) == ["1", "2", "3", "4"] and paths(second) == paths(first)
    assert [text for text in warnings(second) if text.startswith("4 rows were done before, but image files")]
    for row in second.table:
        with Image.open(second.out / row["images"][0]) as image:
            image.load()
    assert len(list(images.iterdir())) == 6
    assert not t2i(rows).results
    (images / "2_0.png").write_bytes(b"")
    assert paths(t2i(rows)) == paths(first), "a second time too"


def test_what_somebody_painted_over_is_not_lost(t2i):
    first = t2i({"1": ("p", {"n": 2})})
    mine = Path(picture(first.out / "images/1_0.png", "red"))
    before = mine.read_bytes()
    second = t2i({"1": ("p", {"n": 2})})
    assert list(second.results) == ["1"] and mine.read_bytes() == before
    assert not {"images/1_0.png", "images/1_1.png"} & set(paths(second)["1"])


def test_a_dry_run_says_it_too(t2i, settings, rows_file):
    first = t2i({"1": "p", "2": "q"})
    (first.out / "images/1_0.png").write_bytes(b"")
    plan = explain(settings("t2i", rows_file([{"id": "1", "prompt": "p"}, {"id": "2", "prompt": "q"}])))
    assert plan["done"] == 1 and plan["warnings"][0].startswith("1 row was done before, but image files")
    assert (first.out / "images/1_0.png").read_bytes() == b""


# Inputs that change


@pytest.fixture
def edits(settings, rows_file, go, tmp_path):
    """edits(task="edit"): a run over rows with pictures a.png, b.png and a mask of b.png."""
    for name, color in (("a.png", "red"), ("b.png", "blue"), ("mask.png", "white")):
        picture(tmp_path / name, color)
    rows = [
        {"id": "a", "prompt": "p", "image": "a.png"},
        {"id": "b", "prompt": "p", "image": "b.png", "mask": "mask.png"},
        {"id": "both", "prompt": "p", "images": ["a.png", "b.png"]},
    ]

    def edits(task="edit", **flags):
        return go(settings(task, rows_file(rows), **flags))

    return edits


@pytest.mark.parametrize(("changed", "rows"), [("a.png", {"a", "both"}), ("b.png", {"b", "both"}), ("mask.png", {"b"})])
def test_a_changed_picture_makes_its_rows_again(edits, tmp_path, changed, rows):
    first = edits()
    before = {path: (first.out / path).read_bytes() for one in paths(first).values() for path in one}
    half = Image.new("RGB", (64, 48), "white")
    half.paste("black", (0, 0, 32, 48))
    half.save(tmp_path / changed)
    second = edits()
    assert set(second.results) == rows
    count = "1 row was" if len(rows) == 1 else f"{len(rows)} rows were"
    assert f"{count} done before, but input images or LoRAs have changed since; these rows run again" in warnings(
        second
    )
    assert {path: (first.out / path).read_bytes() for path in before} == before
    assert all(path not in before for row in rows for path in paths(second)[row])
    third = edits()
    assert not third.results and not warnings(third)


def test_captions_too(edits, tmp_path):
    edits("caption")
    picture(tmp_path / "b.png", "green")
    second = edits("caption")
    assert set(second.results) == {"b", "both"} and not edits("caption").results


def test_a_change_in_the_middle_of_the_same_size(edits, tmp_path):
    edits()
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    os.utime(tmp_path / "a.png", ns=(1, 1))
    assert set(edits().results) == {"a", "both"}


def test_copies_and_pictures_that_are_gone_change_nothing(edits, tmp_path):
    edits()
    shutil.copy(tmp_path / "a.png", tmp_path / "copy.png")
    os.utime(tmp_path / "copy.png", ns=(1, 1))
    os.replace(tmp_path / "copy.png", tmp_path / "a.png")
    (tmp_path / "b.png").unlink()
    again = edits()
    assert not again.results and not warnings(again) and again.counts["done"] == 3


def test_a_refused_row_is_asked_again_with_another_picture(settings, rows_file, go, tmp_path):
    picture(tmp_path / "a.png", "red")
    given = settings("edit", rows_file([{"id": "a", "prompt": "refuse", "image": "a.png"}]))
    assert go(given).counts["failed"] == 1 and not go(given).results
    picture(tmp_path / "a.png", "green", (80, 48))
    assert list(go(given).results) == ["a"] and not go(given).results


def test_journals_without_stamps_count_as_before(edits, tmp_path):
    """Version 0.1.0 noted nothing of the pictures that a row was made from, nor of those that it made."""
    from zlib import crc32

    first = edits()
    lines = []
    for line in (first.out / "journal.jsonl").read_text().splitlines():
        record = json.loads(line)["rec"]
        assert record.pop("files") and record.pop("inputs")
        body = json.dumps(record, separators=(",", ":"))
        lines.append(f'{{"crc":"{crc32(body.encode()):08x}","rec":{body}}}\n')
    (first.out / "journal.jsonl").write_text("".join(lines))
    picture(tmp_path / "a.png", "green")
    assert not edits().results
    (first.out / paths(first)["a"][0]).write_bytes(b"")
    assert list(edits().results) == ["a"]


# Weights


@pytest.fixture
def lora(settings, rows_file, go, tmp_path):
    """(run with a LoRA, its file)"""
    file = tmp_path / "style.safetensors"
    file.write_bytes(os.urandom(1 << 16).ljust(3 << 20, b"\0"))
    path = rows_file([{"id": "1", "prompt": "p"}])
    return lambda: go(settings("t2i", path, lora=[str(file)])), file


def change_the_middle(file: Path) -> None:
    with file.open("r+b") as written:
        written.seek(3 << 19)
        written.write(b"\1")


def test_a_lora_that_changed_in_its_middle_is_another_one(lora):
    run, file = lora
    run()
    assert not run().results
    change_the_middle(file)
    with pytest.raises(RunFolderError, match=r"lora: .*style\.safetensors.* before, .* now"):
        run()


def test_a_folder_of_a_version_that_read_the_ends_of_a_lora_goes_on(lora, settings, rows_file, tmp_path):
    from fastgen.config import stamps

    run, file = lora
    out = run().out
    about = json.loads((out / "run.json").read_text())
    about["settings"]["lora"] = [f"{file}:1.0 ({stamps.ends(file)})"]
    (out / "run.json").write_text(json.dumps(about))
    assert not run().results
    assert stamps.stamp(file) in json.loads((out / "run.json").read_text())["settings"]["lora"][0], (
        "from now on all of it"
    )
    about["settings"]["lora"] = [f"{file}:1.0 (3145728-0123456789abcdef)"]
    (out / "run.json").write_text(json.dumps(about))
    with pytest.raises(RunFolderError, match="lora: "):
        run()


def test_another_schema_under_the_same_name_is_refused(settings, rows_file, go, tmp_path):
    schema = tmp_path / "schema.json"
    picture(tmp_path / "a.png", "red")
    path = rows_file([{"image": "a.png"}])
    schema.write_text('{"type": "object"}')
    given = settings("caption", path, schema=str(schema))
    schema.write_text('{"type": "object", "required": ["x"]}')
    assert settings("caption", path, schema=str(schema)).fingerprint() != given.fingerprint()


# The four cases as a person meets them


def test_a_name_that_is_no_text_harms_its_row_alone(cli, tmp_path, table):
    (tmp_path / "pics").mkdir()
    picture(tmp_path / "pics/ok.png", "red")
    os.rename(picture(tmp_path / "pics/x.png", "red"), bytes(tmp_path / "pics") + b"/bad\xff.png")
    result = cli("caption", "pics", *FAKE, "-o", "out")
    assert result.returncode == 3 and "Traceback" not in result.stderr
    good, bad = sorted(table(tmp_path / "out/results.jsonl"), key=lambda row: row["fastgen"]["status"])
    assert good["image"] == "ok.png" and good["fastgen"]["status"] == "done"
    assert bad["fastgen"]["error"]["field"] == "image" and "row 1, field image" in bad["fastgen"]["error"]["message"]


def test_fresh_never_takes_what_the_run_reads(cli, rows_file, tmp_path):
    rows = rows_file([{"id": "1", "prompt": "p"}])
    assert cli("t2i", rows, *FAKE, "-o", "out", "-q").returncode == 0
    before = (tmp_path / "out/images/1_0.png").read_bytes()
    refused = cli("caption", "out/images", *FAKE, "-o", "out")
    assert refused.returncode == 2 and "--fresh" not in refused.stderr and "another folder" in refused.stderr
    refused = cli("caption", "out/images", *FAKE, "-o", "out", "--fresh")
    assert refused.returncode == 2 and "use another folder with -o" in refused.stderr
    assert (tmp_path / "out/images/1_0.png").read_bytes() == before
    over = cli("t2i", rows, *FAKE, "-o", "out", "--fresh", "--steps", "9")
    assert over.returncode == 0 and "previous-1" in over.stderr
    assert (tmp_path / "out/previous-1/images/1_0.png").read_bytes() == before
