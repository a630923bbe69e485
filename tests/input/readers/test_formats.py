"""Every format of rows gives the same rows, compressed or not; damaged ones are named; a new one is two steps."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tarfile

import pillow_heif
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fastgen.errors import InputError, SettingsError
from fastgen.input.embedded_pictures import NAME, Store
from fastgen.input.readers import formats, parquet, source
from fastgen.input.readers.formats import FORMATS, Format
from fastgen.input.readers.rows import Row, RowReader, estimate, read, written
from fastgen.input.readers.source import Source

ROWS = [{"id": "a", "prompt": "a red circle, large"}, {"id": "b", "prompt": "日本 'quoted' \"twice\""}]


def picture(color="red", format="PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), color).save(buffer, format)
    return buffer.getvalue()


def as_csv(rows, delimiter=",") -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\r\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def as_tar(members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return buffer.getvalue()


FILES = {
    "rows.jsonl": b"\n".join(map(written, ROWS)),
    "rows.ndjson": b"\r\n".join(map(written, ROWS)),
    "rows.json": json.dumps(ROWS, indent=2).encode(),
    "by-id.json": json.dumps({row["id"]: {"prompt": row["prompt"]} for row in ROWS}).encode(),
    "pretty.jsonl": b"\n".join(json.dumps(row, indent=1).encode() for row in ROWS),
    "list.jsonl": json.dumps(ROWS, indent=1).encode(),
    "rows.csv": as_csv(ROWS),
    "excel.csv": b"\xef\xbb\xbf" + as_csv(ROWS, ";"),
    "utf-16.csv": as_csv(ROWS).decode().encode("utf-16"),
    "rows.tsv": as_csv(ROWS, "\t"),
    "rows.parquet": as_parquet(ROWS),
    "rows.tar": as_tar({f"{row['id']}.json": written(row) for row in ROWS}),
}


def compressed(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    return pyarrow.Codec("zstd").compress(data, asbytes=True) if suffix == ".zst" else data


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_rows(tmp_path, name, packed):
    path = tmp_path / (name + packed)
    path.write_bytes(compressed(FILES[name], packed))
    fields = [{k: v for k, v in row.fields().items() if k != "__key__"} for row in read(path)]
    assert fields == ROWS
    assert [row.fields()["id"] for row in read(path, limit=1)] == ["a"]


def test_a_text_file_has_a_prompt_per_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b'\xef\xbb\xbfa "red" circle\r\n\r\n  a star, blue \nbad \xff\n')
    first, second, bad = read(path)
    assert [(row.number, row.fields()) for row in (first, second)] == [
        (1, {"prompt": 'a "red" circle'}),
        (3, {"prompt": "a star, blue"}),
    ]
    with pytest.raises(InputError, match="not UTF-8 at byte 4"):
        bad.fields()


def test_cells_of_a_csv_that_are_numbers_flags_or_lists_are_read_as_such(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        "id,prompt,steps,guidance,seed,images,keep_turns,mine\n"
        '007,"two\nlines",4,3.5,0012,"[""a.png"", ""b.png""]",True,1.50\n'
        "8,[a cat],,1e1,,,,\n"
        "\n"
        "9,short\n"
        "10,a,b,c,d,e,f,g,too,many\n"
    )
    first, second, short, long = read(path)
    assert first.fields() == {
        "id": "007",
        "prompt": "two\nlines",
        "steps": 4,
        "guidance": 3.5,
        "seed": 12,
        "images": ["a.png", "b.png"],
        "keep_turns": True,
        "mine": "1.50",
    }
    assert second.fields() == dict.fromkeys(first.fields()) | {"id": "8", "prompt": "[a cat]", "guidance": 10.0}
    assert short.fields() == dict.fromkeys(first.fields()) | {"id": "9", "prompt": "short"}
    with pytest.raises(InputError, match="10 cells, but the header names 8"):
        long.fields()
    assert [row.number for row in (first, second, short, long)] == [1, 2, 3, 4]


def test_a_quote_that_nobody_closes_is_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('prompt,id\n5" nails,x\n"a red circle,y\na green star,z\n')
    inch, open_ended = read(path)
    assert inch.fields() == {"prompt": '5" nails', "id": "x"} and open_ended.number == 2
    with pytest.raises(InputError, match="a quote is opened and never closed"):
        open_ended.fields()
    path.write_text('prompt,id\n"a red\ncircle","x"')
    assert [row.fields() for row in read(path)] == [{"prompt": "a red\ncircle", "id": "x"}]


def test_a_carriage_return_alone_is_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"prompt,id\na red\rcircle,x\na star,y\n")
    broken, good = read(path)
    assert good.fields() == {"prompt": "a star", "id": "y"}
    with pytest.raises(InputError, match="not valid CSV: a carriage return stands in a cell without quotes"):
        broken.fields()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("name", "text"), [("p.tsv", "prompt\tid\r\nein Fuß\tx\r\n"), ("p.txt", "ein Fuß\r\n")])
def test_tables_that_windows_writes_are_read(tmp_path, encoding, name, text):
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert [row.fields()["prompt"] for row in read(tmp_path / name)] == ["ein Fuß"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("old.csv", b"prompt,id\ra,x\r", "the header is not valid CSV: a carriage return"),
        ("none.csv", b"\n\n", "must name the columns"),
        ("twice.csv", b"a,b,a\n1,2,3\n", "two columns are called 'a'"),
        ("bad.parquet", b"PAR1 no", "cannot be read: "),
        ("bad.tar", b"x" * 2000, "cannot be read: "),
        ("cut.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 2, mtime=0)[:-12], "cannot be read"),
        ("no.jsonl.gz", b"{}", "cannot be read: .*save it again"),
        ("no.jsonl.zst", b"{}", "cannot be read: "),
        ("cut.jsonl", b'{\n"a": 1\n', "not valid JSON after row 0"),
    ],
)
def test_a_file_that_is_damaged_is_named(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SettingsError, match=f"INPUT .*{name}: .*{words}"):
        list(read(tmp_path / name))
    assert estimate(tmp_path / name) == 0


def test_pictures_inside_a_table_become_files_named_by_their_content(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BATCH_OF_PICTURES", 2)
    path, png = tmp_path / "rows.parquet", picture()
    rows = [
        {"image": {"bytes": png, "path": "red.png"}, "raw": png, "more": [picture("blue", "WEBP")], "hash": b"\1\2"},
        {"image": {"bytes": None, "path": "there.png"}, "raw": None, "more": [], "hash": None},
        {"image": None, "raw": b"no picture", "more": None, "hash": None},
    ]
    path.write_bytes(as_parquet(rows))
    names_only = [row.fields() for row in read(path)]
    reader = RowReader(path, store=Store(str(tmp_path / "out")))
    first, second, third = (row.fields() for row in reader)
    assert [first, second, third] == names_only, "what a row says does not depend on where pictures are kept"
    assert first["image"] == first["raw"] and NAME.fullmatch(first["image"]) and first["image"].endswith(".png")
    assert (tmp_path / "out" / first["image"]).read_bytes() == png
    assert first["more"][0].endswith(".webp") and first["hash"] == "AQI="
    assert second["image"] == "there.png" and third["raw"] == "bm8gcGljdHVyZQ=="
    assert reader.expected == 3 and len(os.listdir(tmp_path / "out/inputs")) == 2


def test_samples_of_a_webdataset(tmp_path):
    members = {
        "train/0001.jpg": picture("green", "JPEG"),
        "train/0001.txt": b"a green sheet\n",
        "train/0001.json": b'{"width": 16, "text": "own"}',
        "train/0002.png": picture(),
        "train/0002.mask.png": picture("white"),
        "train/0002.cls": b"3",
        "train/0003.json": b"{broken",
    }
    (tmp_path / "a.tar").write_bytes(as_tar(members))
    (tmp_path / "b.tar").write_bytes(as_tar({"0001.txt": b"second shard"}))
    first, second, broken, last = read(tmp_path / "*.tar")
    assert first.fields() == {
        "__key__": "train/0001",
        "width": 16,
        "text": "own",
        "image": first.fields()["image"],
    }
    assert NAME.fullmatch(first.fields()["image"]) and second.fields()["cls"] == "3"
    assert second.fields()["mask"] != second.fields()["image"]
    with pytest.raises(InputError, match=r"train/0003\.json: not valid JSON"):
        broken.fields()
    assert (last.number, last.fields()) == (4, {"__key__": "0001", "text": "second shard"})


def test_a_folder_of_pictures_is_read_by_content_and_says_what_it_leaves_out(tmp_path):
    pictures, linked = tmp_path / "pictures", tmp_path / "linked"
    (pictures / "deep").mkdir(parents=True)
    linked.mkdir()
    for path, format in ((pictures / "a.png", "PNG"), (pictures / "b.jfif", "JPEG"), (pictures / "deep/none", "WEBP")):
        path.write_bytes(picture(format=format))
    (pictures / "c.avif").write_bytes(picture(format="AVIF"))
    (pictures / "d.tga").write_bytes(picture(format="TGA"))
    pillow_heif.from_pillow(Image.new("RGB", (16, 16), "red")).save(pictures / "f.jpg.unknown")
    (linked / "e.png").write_bytes(picture())
    (pictures / "link").symlink_to(linked)
    (pictures / "again").symlink_to(pictures)
    (pictures / "notes.txt").write_text("no picture")
    (pictures / ".hidden.png").write_bytes(picture())
    (pictures / "broken.png").write_text("its row fails")
    said: list[str] = []
    found = {row.fields()["image"] for row in RowReader(pictures, say=said.append)}
    assert found == {"a.png", "b.jfif", "c.avif", "d.tga", "f.jpg.unknown", "broken.png", "deep/none", "link/e.png"}
    assert said == ["1 file is no picture and is left out: notes.txt"]


def test_the_pictures_of_a_run_folder_are_read_without_a_word_about_its_tables(tmp_path):
    (tmp_path / "logs").mkdir()
    for name in (
        "run.json",
        "results.jsonl",
        "results.csv",
        "failures.jsonl",
        "journal.jsonl",
        "logs/cpu.log",
        "x.txt",
    ):
        (tmp_path / name).write_text("{}")
    (tmp_path / "a.png").write_bytes(picture())
    said: list[str] = []
    assert [row.fields() for row in RowReader(tmp_path, say=said.append)] == [{"image": "a.png"}]
    assert said == ["1 file is no picture and is left out: x.txt"]


def test_a_folder_as_the_hub_has_it_is_its_rows(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("train-00000", "train-00001"):
        (tmp_path / "data" / f"{name}.parquet").write_bytes(as_parquet([{"prompt": name}]))
    (tmp_path / "README.md").write_text("a card")
    assert [(row.number, row.fields()["prompt"]) for row in read(tmp_path)] == [(1, "train-00000"), (2, "train-00001")]
    (tmp_path / "a.png").write_bytes(picture())
    assert [row.fields() for row in read(tmp_path)] == [{"image": "a.png"}], "tables beside pictures are no rows"


def test_a_folder_with_metadata_is_its_rows(tmp_path):
    for name, rows in (("train", ["a.png", "b.png"]), ("test", ["c.png"])):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"file_name": file, "text": "x"}) for file in rows]
        (tmp_path / name / "metadata.jsonl").write_text("\n".join(lines))
    assert [row.fields()["file_name"] for row in read(tmp_path)] == ["test/c.png", "train/a.png", "train/b.png"]
    assert [row.fields()["file_name"] for row in read(tmp_path / "train")] == ["a.png", "b.png"]


def test_a_folder_of_files_of_one_format(tmp_path):
    for number in (1, 0):
        (tmp_path / f"part-{number}.parquet").write_bytes(as_parquet([{"prompt": f"p{number}"}] * 2))
    assert [(row.number, row.fields()["prompt"]) for row in read(tmp_path)] == [
        (1, "p0"),
        (2, "p0"),
        (3, "p1"),
        (4, "p1"),
    ]


def test_what_datasets_saved_is_read_without_it(tmp_path):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "red.png").write_bytes(picture())
    rows = {"image": [str(tmp_path / "red.png")], "text": ["red"]}
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    table.map(lambda row: row).save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "splits")
    row = next(read(tmp_path / "saved")).fields()
    assert row["text"] == "red" and (NAME.fullmatch(row["image"]) or row["image"].endswith("red.png"))
    with pytest.raises(SettingsError, match=r"several splits \(train, test\); give one of them"):
        list(read(tmp_path / "splits"))


def test_a_data_set_of_the_hub_is_streamed(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(name, split, streaming):
        asked.append((name, split, streaming))
        return datasets.Dataset.from_list([{"text": "a"}, {"text": "b"}]).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert [row.fields() for row in read("hf://owner/name/test")] == [{"text": "a"}, {"text": "b"}]
    assert asked == [("owner/name", "test", True)]
    with pytest.raises(SettingsError, match="give hf://OWNER/NAME"):
        list(read("hf://owner"))


def test_the_number_of_rows_of_a_table_is_known_at_once(tmp_path):
    (tmp_path / "a.parquet").write_bytes(as_parquet([{"prompt": "a"}] * 5000))
    (tmp_path / "b.parquet").write_bytes(as_parquet([{"prompt": "b"}] * 10))
    reader = RowReader(tmp_path / "?.parquet")
    next(iter(reader))
    assert reader.expected == 5010 and estimate(tmp_path / "a.parquet", limit=7) == 7


def test_a_format_is_added_as_the_page_says(tmp_path, monkeypatch):
    """docs/design.md, "a format of rows": a function that takes a `Source` and yields `Row`s, and a line in FORMATS."""
    line = Format("ini", (".ini",), f"{__name__}:read_sections", "a section per row", by_line=True)
    monkeypatch.setattr(formats, "FORMATS", [*FORMATS, line])
    path = tmp_path / "rows.ini.gz"
    path.write_bytes(gzip.compress(b"[a]\nprompt=a fox\n[b]\nprompt=a cat\n"))
    assert [row.fields() for row in read(path)] == [{"id": "a", "prompt": "a fox"}, {"id": "b", "prompt": "a cat"}]
    from fastgen.resolver import resolve

    assert resolve("t2i", path, backend="fake", gpus="cpu", out=tmp_path / "out").run.input == str(path)
    with pytest.raises(SettingsError, match=r"\.ini \(a section per row\)"):
        resolve("t2i", __file__, backend="fake", gpus="cpu", out=tmp_path / "out")


def read_sections(file: Source):
    """The reader of that test."""
    number, fields = 0, {}
    for line in file.lines():
        text = line.decode().strip()
        if text.startswith("["):
            if fields:
                number += 1
                yield Row(number, written(fields))
            fields = {"id": text.strip("[]")}
        elif text:
            name, _, value = text.partition("=")
            fields[name] = value
    yield Row(number + 1, written(fields))


def test_a_long_line_of_another_format_is_named_too(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_LINE", 1000)
    for name in ("rows.txt", "rows.csv"):
        (tmp_path / name).write_text("prompt\n" + "x" * 3000 + "\nshort\n")
        *_, long, short = read(tmp_path / name)
        with pytest.raises(InputError, match=r"longer than|field larger"):
            long.fields()
        assert short.fields() == {"prompt": "short"}
