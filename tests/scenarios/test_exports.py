"""What a run made, read by the libraries that people use: pandas, datasets, webdataset, DuckDB. At any time."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import fastgen
from fastgen.errors import DiskError, RunFolderError, SettingsError
from fastgen.input import images
from fastgen.output import names
from fastgen.output.export import export
from fastgen.output.writers import from_journal, table_formats, webdataset
from fastgen.output.writers.records import Records
from tests.conftest import read_lines

FAKE = {"backend": "fake", "gpus": "cpu"}
ROWS = [
    {"id": "a", "prompt": "a fox", "mine": 1, "n": 2},
    {"prompt": "refuse", "mine": "two"},
    {"id": "turns", "conversations": [{"role": "user", "content": "noon"}, {"role": "user", "content": "night"}]},
    {"prompt": 'ü 🍵, "quoted"', "mine": None},
]


@pytest.fixture(scope="module")
def session():
    with fastgen.Session() as session:
        yield session


@pytest.fixture(scope="module")
def runs(session, tmp_path_factory):
    """Finished run folders of each task, by its name; each is made from the one before."""
    place = tmp_path_factory.mktemp("runs")
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def run(task, given, **flags):
        list(session.generate(fastgen.resolve(task, given, out=place / task, table="parquet", **FAKE, **flags)))
        return place / task

    t2i = run("t2i", place / "rows.jsonl", size="64x64", webdataset=True)
    edit = run("edit", t2i / "results.jsonl", prompt="make it blue", size="64x64")
    return {"t2i": t2i, "edit": edit, "caption": run("caption", edit / "results.jsonl", image_key="edited_images")}


def test_names_are_those_of_the_rows(runs):
    made = sorted(os.listdir(runs["t2i"] / "images"))
    assert made == ["a_0.png", "a_1.png", "row-000004_0.png", "turns_0.png", "turns_1.png"]


def test_the_table_in_parquet_and_csv_is_what_pandas_and_duckdb_read(runs):
    pandas, duckdb = pytest.importorskip("pandas"), pytest.importorskip("duckdb")
    out = runs["t2i"]
    frame = pandas.read_parquet(out / "results.parquet")
    assert list(frame["prompt"][[0, 1, 3]]) == ["a fox", "refuse", ROWS[3]["prompt"]]
    assert list(frame["images"][0]) == ["images/a_0.png", "images/a_1.png"] and list(frame["mine"][:2]) == ["1", "two"]
    done = duckdb.sql(f"select fastgen.id, fastgen.width from '{out}/results.parquet' where fastgen.status = 'done'")
    assert len(done.fetchall()) == 3
    assert table_formats.write(out, "csv") == out / "results.csv"
    table = pandas.read_csv(out / "results.csv")
    assert list(table["fastgen.status"]) == ["done", "failed", "done", "done"]
    assert json.loads(table["images"][0]) == ["images/a_0.png", "images/a_1.png"]
    assert duckdb.sql(f"select count(*) from '{out}/results.csv'").fetchall() == [(4,)]


def test_an_imagefolder_has_pictures_with_prompts(runs, tmp_path):
    datasets = pytest.importorskip("datasets")
    assert export(runs["t2i"], "imagefolder", tmp_path / "t2i") == 5
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "t2i"), split="train", cache_dir=tmp_path)
    assert sorted(loaded["prompt"]) == sorted(["a fox", "a fox", "noon", "night", ROWS[3]["prompt"]])
    assert loaded[0]["image"].size == (64, 64) and "fastgen_seed" in loaded.features
    assert export(runs["edit"], "imagefolder", tmp_path / "edit") == 4
    (line, *_) = read_lines(tmp_path / "edit/metadata.jsonl")
    assert line["prompt"] == "make it blue" and (tmp_path / "edit" / line["input_file_name"]).is_file()


def test_a_data_set_of_hugging_face_is_loaded_with_its_pictures(runs, tmp_path):
    datasets = pytest.importorskip("datasets")
    assert export(runs["edit"], "hf", tmp_path / "edit") == 4
    loaded = datasets.load_dataset(str(tmp_path / "edit"), split="train", cache_dir=tmp_path / "cache")
    assert loaded[0]["image"].size == loaded[0]["input_image"].size == (64, 64)
    assert export(runs["caption"], "hf", tmp_path / "caption") == 3
    loaded = datasets.load_dataset(str(tmp_path / "caption"), split="train", cache_dir=tmp_path / "cache")
    assert loaded[0]["image"].size == (64, 64) and loaded[0]["caption"].endswith(" pictures")


def test_parquet_with_pictures_is_read_by_duckdb_and_by_fastgen(runs, tmp_path, session):
    duckdb = pytest.importorskip("duckdb")
    assert export(runs["t2i"], "parquet", tmp_path / "data", keep_failed=True) == 6
    rows = duckdb.sql(f"select prompt, octet_length(image.bytes), image.path from '{tmp_path}/data/data/*.parquet'")
    found = {(prompt, bool(size)) for prompt, size, _ in rows.fetchall()}
    assert ("refuse", False) in found and ("night", True) in found
    again = fastgen.resolve("caption", tmp_path / "data", out=tmp_path / "again", output_key="words", **FAKE)
    results = list(session.generate(again))
    assert [type(result) for result in results].count(fastgen.Done) == 5, "and the row without a picture fails"


def test_a_webdataset_is_read_by_its_library(runs, tmp_path):
    wds = pytest.importorskip("webdataset")
    samples = list(wds.WebDataset(str(runs["t2i"] / "webdataset/shard-000000.tar"), shardshuffle=False).decode("pil"))
    assert {sample["__key__"] for sample in samples} == {"a_0", "a_1", "turns_0", "turns_1", "row-000004_0"}
    first = next(sample for sample in samples if sample["__key__"] == "turns_1")
    assert first["png"].size == (64, 64) and first["txt"] == "night" and first["json"]["fastgen"]["id"] == "turns"
    assert export(runs["edit"], "webdataset", tmp_path / "edit") == 1
    (first, *_) = wds.WebDataset(str(tmp_path / "edit/shard-000000.tar"), shardshuffle=False).decode("pil")
    assert first["input.png"].size == (64, 64) and first["txt"] == "make it blue"


def test_shards_that_are_there_are_not_written_again(runs, tmp_path, monkeypatch):
    """Killed in the middle: what remains is whole, and the next start writes the rest."""
    written = []
    real = webdataset._add
    monkeypatch.setattr(webdataset, "_add", lambda tar, record: (written.append(record.key), real(tar, record))[1])
    records = Records(runs["t2i"])
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(webdataset, "_add", lambda tar, record: stop(written, real, tar, record))
        webdataset.write(records, tmp_path, samples=2)
    assert [path.name for path in tmp_path.glob("*.tar")] == ["shard-000000.tar"]
    assert webdataset.write(records, tmp_path, samples=2) == 3
    assert len(written) == 6 and sorted(set(written)) == sorted({record.key for record in records})
    members = []
    for path in tmp_path.glob("*.tar"):
        with tarfile.open(path) as tar:
            members += tar.getnames()
    assert len(members) == len(set(members)) == 3 * 5
    written.clear()
    assert webdataset.write(records, tmp_path, samples=5) == 1 and len(list(tmp_path.glob("*.tar"))) == 1


def stop(written, real, tar, record):
    if len(written) == 3:
        raise KeyboardInterrupt
    written.append(record.key)
    real(tar, record)


def test_the_table_is_there_at_any_time(session, rows_file, tmp_path, monkeypatch):
    out = tmp_path / "out"
    path = rows_file([{"prompt": f"{n}", "images": ["", None]} for n in range(4)])
    settings = fastgen.resolve("t2i", path, out=out, size="64x64", batch_size=1, table="csv", **FAKE)
    results = session.generate(settings)
    next(results)
    assert from_journal.make_tables(out)["pending"] >= 1, "while the run is at work"
    results.close()
    (out / "results.jsonl").unlink(missing_ok=True)
    list(session.generate(fastgen.resolve("t2i", path, out=out, size="64x64", limit=3, **FAKE)))
    assert from_journal.make_tables(out) == {"done": 3}, "of the first rows alone"
    list(session.generate(settings))
    monkeypatch.chdir("/")
    finished = read_lines(out / "results.jsonl")
    (out / "results.jsonl").unlink()
    assert from_journal.make_tables(out) == {"done": 4}
    assert read_lines(out / "results.jsonl") == finished and (out / "results.csv").exists()
    assert not (out / ".partial").exists()


def test_what_is_no_run_is_refused(tmp_path, runs):
    with pytest.raises(RunFolderError, match=r"run\.json cannot be read: No such file"):
        from_journal.make_tables(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"settings": {}, "input": str(tmp_path / "gone.jsonl")}))
    with pytest.raises(RunFolderError, match=r"INPUT .*gone\.jsonl is no longer there"):
        from_journal.make_tables(tmp_path)
    with pytest.raises(SettingsError, match="--to xml: one of parquet, webdataset, imagefolder, hf"):
        export(runs["t2i"], "xml", tmp_path / "x")
    with pytest.raises(RunFolderError, match="is a run folder"):
        export(runs["t2i"], "parquet", runs["edit"])
    with pytest.raises(SettingsError, match="--table xml: one of jsonl, parquet, csv"):
        fastgen.resolve("t2i", table="xml", **FAKE)


def test_a_picture_that_is_gone_ends_an_export_with_its_name(session, rows_file, tmp_path):
    out = tmp_path / "out"
    list(session.generate(fastgen.resolve("t2i", rows_file([{"id": "a", "prompt": "p"}]), out=out, **FAKE)))
    (out / "images/a_0.png").unlink()
    for to in ("webdataset", "imagefolder", "parquet"):
        with pytest.raises(DiskError, match=r"a_0\.png"):
            export(out, to, tmp_path / to)


def test_many_images_are_in_folders_and_rows_may_move(session, rows_file, tmp_path, monkeypatch):
    monkeypatch.setattr(names, "IN_FOLDER", 2)
    out, rows = tmp_path / "out", [{"prompt": f"{n}"} for n in range(5)]

    def run(rows):
        list(session.generate(fastgen.resolve("t2i", rows_file(rows), out=out, size="64x64", **FAKE)))
        return [row["images"][0] for row in read_lines(out / "results.jsonl")]

    first = run(rows)
    assert first == [f"images/{(n - 1) // 2:05}/row-{n:06}_0.png" for n in range(1, 6)]
    moved = run([{"prompt": "new"}, *rows, {"prompt": "last"}])
    assert moved[1:6] == first, "no row is made again or loses its images"
    assert moved[0].startswith("images/00000/row-000001-") and moved[6] == "images/00003/row-000007_0.png"
    assert len(set(moved)) == 7 and all((out / path).is_file() for path in moved)


def test_a_pattern_names_files(session, rows_file, tmp_path):
    rows = [{"id": "x/1", "prompt": "p", "kind": "cat", "n": 2}, {"prompt": "q"}]
    settings = fastgen.resolve("t2i", rows_file(rows), out=tmp_path / "out", name="{kind}-{id}_{n}", **FAKE)
    list(session.generate(settings))
    first, second = read_lines(tmp_path / "out/results.jsonl")
    assert second["images"] == ["images/none-row-000002_0.png"]
    assert [Path(path).name[:8] for path in first["images"]] == ["cat-x_1-"] * 2


@pytest.mark.parametrize(
    ("format", "exact"), [("jpeg:50", False), ("webp:lossless", True), ("webp:30", False), ("png", True)]
)
def test_the_quality_of_a_format(format, exact):
    chosen = fastgen.resolve("t2i", format=format, model="tiny", gpus="cpu").image
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    data = images.encode(noise, chosen.format, {}, b"", chosen.compression)
    usual = images.encode(noise, chosen.format, {})
    with Image.open(io.BytesIO(data)) as back:
        assert (back.convert("RGB").tobytes() == noise.tobytes()) == exact
    assert exact or len(data) < len(usual)
    assert ("compression" in chosen.fingerprint()) == (":" in format)


@pytest.mark.parametrize("format", ["png:9", "jpeg:lossless", "jpeg:0", "webp:many", "gif:3"])
def test_qualities_that_cannot_be(format):
    with pytest.raises(SettingsError, match="--format"):
        fastgen.resolve("t2i", format=format, model="tiny", gpus="cpu")
