"""Object storage as a place of rows and pictures: addresses, copies, waiting for a server that is away."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

from fastgen.errors import SettingsError, StorageError
from fastgen.input import paths, storage
from fastgen.input.embedded_pictures import url_name
from fastgen.input.images import Places
from fastgen.input.readers.rows import RowReader, estimate, is_on_hub, is_stored, read
from fastgen.resolver import resolve


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("s3://b/run/", "s3://b/run"), ("S3:/b/run", "s3://b/run"), ("gs://b", "gs://b"), ("memory:///a", "memory://a")],
)
def test_addresses(given, wanted):
    assert storage.is_address(given) and storage.address(given) == wanted


@pytest.mark.parametrize("given", ["rows.jsonl", "/s3://x", "s3:", "s3://", "http://b/x", "a cat: s3://b"])
def test_what_is_no_address(given):
    assert not storage.is_address(given)


def test_a_password_is_not_taken():
    with pytest.raises(SettingsError) as refused:
        resolve("t2i", "s3://key:hush@bucket/rows.jsonl", backend="fake", gpus="cpu")
    assert "has a password in it" in str(refused.value) and "hush" not in str(refused.value)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_system", lambda scheme: __import__("no_such_package_gcsfs"))
    with pytest.raises(SettingsError, match=r"gs://b/rows.jsonl: .* missing; .*pip install 'fastgen-mm\[gs\]'"):
        paths.rows_input("gs://b/rows.jsonl", "t2i")


def test_a_data_set_of_the_hub_is_not_a_file():
    assert is_on_hub("hf://owner/name/train") and not is_stored("hf://owner/name/train")
    for file in ("hf://datasets/owner/name/data/a.parquet", "hf://datasets/owner/name/*.jsonl"):
        assert is_stored(file) and not is_on_hub(file)


def test_rows_of_every_kind_of_place(memory):
    memory.pipe("/b/rows.jsonl", b'{"prompt": "a"}\n{"prompt": "b"}\n')
    memory.pipe("/b/part-2.csv", b"prompt\ny\n")
    memory.pipe("/b/part-1.csv", b"prompt\nx\n")
    memory.pipe("/data/2.jsonl", b'{"prompt": "second"}\n')
    memory.pipe("/data/1.jsonl", b'{"prompt": "first"}\n')
    memory.pipe("/meta/train/metadata.jsonl", b'{"file_name": "a.png"}\n')
    memory.pipe("/meta/train/a.png", picture())

    def rows(address):
        return [row.fields() for row in read(address)]

    assert rows("memory://b/rows.jsonl") == [{"prompt": "a"}, {"prompt": "b"}]
    assert rows("memory://b/part-*.csv") == [{"prompt": "x"}, {"prompt": "y"}]
    assert rows("memory://data") == [{"prompt": "first"}, {"prompt": "second"}]
    assert rows("memory://meta") == [{"file_name": "train/a.png"}]
    assert estimate("memory://b/part-*.csv") == 2 and [row.number for row in read("memory://data")] == [1, 2]


def test_pictures_of_a_folder_are_rows(memory):
    for name in ("b.png", "below/a.jpg", ".hidden.png", "notes.txt", "below/more.dat"):
        memory.pipe(f"/photos/{name}", b"x")
    said: list[str] = []
    rows = [row.fields() for row in RowReader("memory://photos", say=said.append)]
    assert rows == [{"image": "b.png"}, {"image": "below/a.jpg"}]
    assert said == ["2 files are no pictures and left out: below/more.dat, notes.txt"]


def test_a_file_is_copied_again_only_if_it_has_changed(memory):
    memory.pipe("/b/rows.txt", b"one\n")
    first = storage.local_copy("memory://b/rows.txt")
    assert storage.local_copy("memory://b/rows.txt") == first and first.read_bytes() == b"one\n"
    memory.pipe("/b/rows.txt", b"two\n")
    second = storage.local_copy("memory://b/rows.txt")
    assert second != first and second.read_bytes() == b"two\n" and second.name == "rows.txt"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("memory://b/none.jsonl", "no such file or folder there"),
        ("memory://b/empty.jsonl", "the file is empty"),
        ("memory://b/rows.doc", "the name must end in"),
        ("memory://pics", "is a folder"),
        ("memory://saved", "saved by `datasets`"),
        ("hdfs://b/rows.jsonl", "must be on a disk, or on s3://"),
    ],
)
def test_input_that_is_refused(memory, given, words):
    memory.pipe("/b/empty.jsonl", b"")
    memory.pipe("/b/rows.doc", b"x")
    memory.pipe("/pics/a.png", b"x")
    memory.pipe("/saved/state.json", b"{}")
    with pytest.raises(SettingsError, match=f"INPUT {given}: .*{words}"):
        paths.rows_input(given, "t2i")


def test_where_relative_paths_start():
    assert paths.stored_image_root(None, "s3://b/in/rows.jsonl") == "s3://b/in"
    assert paths.stored_image_root(None, "s3://b/in/*/part-*.jsonl") == "s3://b/in"
    assert paths.stored_image_root(None, "s3://b/photos") == "s3://b/photos"
    assert paths.stored_image_root("s3://other/", "/rows.jsonl") == "s3://other"
    assert paths.stored_image_root("/photos", "s3://b/in/rows.jsonl") == ""
    assert paths.stored_image_root(None, "/rows.jsonl") == paths.stored_image_root(None, "hf://owner/name") == ""


def test_an_image_in_storage_has_an_address(tmp_path):
    places = Places("s3://b/in")
    assert places.address("a/../b.png") == "s3://b/in/b.png" and places.address("gs://c/d.png") == "gs://c/d.png"
    inside = base64.b64encode(picture()).decode()
    assert places.address("/on/a/disk.png") == places.address(inside) == places.address("data:image/png,x") == ""
    assert Places("/data").address("a.png") == ""
    (tmp_path / "here.png").touch()
    chained = Places(str(tmp_path), "s3://b/in")
    assert chained.address("a.png") == "s3://b/in/a.png" and chained.address("here.png") == ""
    for wrong in ("../a.png", "s3://key:hush@b/a.png"):
        with pytest.raises(Exception, match=r"leads out|password"):
            places.address(wrong)


class Flaky:
    """Fails `times` times."""

    def __init__(self, error: Exception, times: int):
        self.error, self.left, self.calls = error, times, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "here"


def test_a_server_that_is_away_is_waited_for(monkeypatch):
    monkeypatch.setattr(storage, "growing", lambda **_: lambda state: 0.0)
    patience = storage.Patience(60)
    assert patience.call("s3://b", flaky := Flaky(ConnectionError("refused"), 3)) == "here"
    assert flaky.calls == 4 and not patience.waiting


@pytest.mark.parametrize("error", [PermissionError("403"), TypeError("a fault of ours")])
def test_what_no_waiting_helps_ends_at_once(error):
    flaky = Flaky(error, 3)
    with pytest.raises(StorageError, match=str(error)) as said:
        storage.Patience(60).call("s3://b", flaky)
    assert flaky.calls == 1
    assert ("check the keys in the environment (AWS_ACCESS_KEY_ID" in str(said.value)) == ("403" in str(error))


def test_waiting_ends_with_the_deadline_or_when_it_is_given_up():
    with pytest.raises(StorageError, match=r"s3://b does not answer \(waited 0 s\): refused"):
        storage.Patience(0).call("s3://b", Flaky(ConnectionError("refused"), 9))
    patience = storage.Patience(60)
    patience.given_up.set()
    with pytest.raises(StorageError):
        patience.call("s3://b", Flaky(ConnectionError("refused"), 9))
    assert patience.waiting == ""


def test_a_run_reads_rows_and_pictures_from_storage(memory, settings, go, tmp_path):
    memory.pipe("/in/a/one.png", picture())
    memory.pipe("/in/broken.png", b"no picture")
    rows = [
        {"id": "relative", "image": "a/one.png"},
        {"id": "absolute", "image": "memory://in/a/one.png"},
        {"id": "none", "image": "none.png"},
        {"id": "broken", "image": "broken.png"},
    ]
    memory.pipe("/in/rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    run = go(settings("caption", "memory://in/rows.jsonl"))
    said = {row["id"]: row["fastgen"].get("error", {}).get("message", "done") for row in run.table}
    assert said["relative"] == said["absolute"] == "done"
    assert "row 3, field image: 'memory" not in said["none"] and "there is no memory://in/none.png" in said["none"]
    assert "what is there is no picture" in said["broken"]
    assert (tmp_path / "out" / url_name("memory://in/a/one.png")).read_bytes() == picture()
    chained = go(settings("edit", tmp_path / "out/results.jsonl", out=tmp_path / "next", prompt="make it night"))
    assert [row["fastgen"]["status"] for row in chained.table] == ["done", "done", "failed", "failed"]
    assert "there is no memory://in/none.png" in chained.table[2]["fastgen"]["error"]["message"]


def test_rows_are_read_again_from_their_copies(memory):
    """At the end of a run that is interrupted, nobody waits for a server that is away."""
    memory.pipe("/b/rows.jsonl", b'{"prompt": "a"}\n{"prompt": "b"}\n')
    reader = RowReader("memory://b/rows.jsonl")
    rows = list(reader)
    memory.rm("/b/rows.jsonl")
    assert list(reader.again()) == rows and reader.expected == 2
