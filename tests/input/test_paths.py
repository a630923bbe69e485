"""Files and folders that flags name: found, checked, and refused with the flag that named them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from fastgen.errors import SettingsError
from fastgen.input import paths
from fastgen.input.paths import rows_file
from fastgen.input.readers.rows import estimate, read
from fastgen.resolver import resolve


@pytest.fixture
def rows(rows_file):
    return rows_file([{"prompt": "a"}])


@pytest.mark.parametrize("scale", ["nan", "inf"])
def test_a_lora_scale_is_finite(rows, tmp_path, scale):
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(SettingsError, match="finite"):
        resolve("t2i", rows, backend="fake", gpus="cpu", lora=[f"{tmp_path}/a.safetensors:{scale}"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.jsonl", None, "no such file"),
        ("empty.jsonl", b"", "is empty"),
        ("rows.docx", b"{}", r"\.jsonl"),
        ("rows.xlsx", b"a", r"\.jsonl"),
    ],
)
def test_inputs_that_are_refused(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=f"INPUT .*{name}.*{words}"):
        resolve("t2i", tmp_path / name, backend="fake", gpus="cpu")


def test_a_folder_is_no_input(tmp_path):
    with pytest.raises(SettingsError, match=r"is a folder; give a \.jsonl"):
        resolve("t2i", tmp_path, backend="fake", gpus="cpu")


def test_no_input_is_no_file():
    assert paths.rows_file(None, "t2i") is None


def test_pictures_to_caption_may_be_a_folder(tmp_path):
    assert paths.rows_file(tmp_path, "caption") == tmp_path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "ROWS.JSONL"])
def test_rows_are_known_by_their_suffix(tmp_path, name):
    (tmp_path / name).write_text("{}")
    assert paths.rows_file(str(tmp_path / name), "t2i") == tmp_path / name


def test_relative_pictures_start_where_the_flag_says(rows, tmp_path):
    (tmp_path / "pictures").mkdir()
    assert paths.image_root(tmp_path / "pictures", rows, "edit") == (tmp_path / "pictures", [])
    with pytest.raises(SettingsError, match="--image-root"):
        paths.image_root(tmp_path / "none", rows, "edit")


def test_else_in_the_folder_of_the_rows(rows, tmp_path, monkeypatch):
    assert paths.image_root(None, rows, "edit") == (tmp_path, [])
    assert paths.image_root(None, tmp_path, "caption") == (tmp_path, []), "a folder of pictures is its own root"
    monkeypatch.chdir(tmp_path)
    assert paths.image_root(None, None, "edit") == (tmp_path, []), "rows from Python: the current folder"


@pytest.mark.parametrize(
    ("row", "beside", "moves"),
    [
        ({"image": "a.png"}, False, True),
        ({"images": ["a.png", "b.png"]}, False, True),
        ({"image": "a.png"}, True, False),  # it is in the folder of the rows too
        ({"image": "none.png"}, False, False),
        ({"prompt": "no picture"}, False, False),
        (b"no json", False, False),
    ],
    ids=str,
)
def test_a_picture_that_is_only_in_the_current_folder_moves_the_root_and_is_told(
    rows_file, tmp_path, monkeypatch, row, beside, moves
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    Image.new("RGB", (8, 8)).save(here / "a.png")
    if beside:
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    root, notes = paths.image_root(None, rows_file([row]), "edit")
    assert root == (here if moves else tmp_path)
    assert len(notes) == moves and all("a.png" in note and str(here) in note for note in notes)


def test_failed_rows_have_their_pictures_where_their_run_had_them(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "failures.jsonl").write_text("{}\n")
    assert paths.image_root(None, run / "failures.jsonl", "edit")[0] == run, "no run.json tells of another place"
    (run / "run.json").write_text(json.dumps({"settings": {"image_root": str(tmp_path)}}))
    assert paths.image_root(None, run / "failures.jsonl", "edit")[0] == tmp_path


def test_a_schema_is_a_file_or_a_dict(tmp_path):
    schema = {"type": "object", "properties": {"color": {"type": "string"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    assert json.loads(paths.schema(tmp_path / "schema.json")) == schema == json.loads(paths.schema(schema))
    assert paths.schema(None) == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "schema.json"), ("{", "JSON"), ("[1]", "object"), ('{"type": "nonsense"}', "not a JSON schema")],
)
def test_schemas_that_are_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "schema.json").write_text(content)
    with pytest.raises(SettingsError, match=f"--schema .*{words}"):
        paths.schema(tmp_path / "schema.json")


def test_a_lora_has_a_scale_behind_the_last_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.safetensors", "a:b.safetensors"):
        (tmp_path / name).touch()
    assert paths.lora("a.safetensors") == (str(tmp_path / "a.safetensors"), 1.0)
    assert paths.lora("a.safetensors:-0.5") == (str(tmp_path / "a.safetensors"), -0.5)
    assert paths.lora("a:b.safetensors") == (str(tmp_path / "a:b.safetensors"), 1.0)
    assert paths.lora("a:b.safetensors:2") == (str(tmp_path / "a:b.safetensors"), 2.0)


def test_transformer_weights_are_one_file_of_safetensors(tmp_path):
    file = tmp_path / "t.safetensors"
    file.touch()
    assert paths.transformer(str(file)) == str(file)
    assert paths.transformer(None) == paths.transformer("") == ""
    (tmp_path / "t.bin").touch()
    for wrong in ("none.safetensors", str(tmp_path / "t.bin"), str(tmp_path)):
        with pytest.raises(SettingsError, match="--transformer"):
            resolve("t2i", model="tiny", gpus="cpu", transformer=wrong)


def test_a_first_row_with_a_picture_in_place_of_a_path_ends_no_run(tmp_path, monkeypatch):
    """Where paths start is judged by the first picture that the rows name, which may be anything."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for value in ("A" * 300_000, "half \ud83d", "a\nb", "bad\udcff"):
        (tmp_path / "rows.jsonl").write_text(json.dumps({"image": value, "prompt": "a"}) + "\n")
        assert paths.image_root(None, tmp_path / "rows.jsonl", "edit") == (tmp_path, [])


@pytest.mark.parametrize("given", ["sftp://host/run", "hdfs:/host/run"])
def test_a_store_that_cannot_be_used_names_no_folder(settings, given):
    with pytest.raises(
        SettingsError, match=rf"-o {given.partition(':')[0]}://host/run: must be on a disk, or on s3://"
    ):
        settings("t2i", out=given)


def test_a_picture_is_input_of_the_tasks_that_take_pictures(tmp_path):
    path = tmp_path / "a.PNG"
    path.write_bytes(b"\x89PNG")
    assert rows_file(path, "caption") == rows_file(path, "edit", has_prompt=True) == path
    for task, words in (("t2i", "use fastgen edit or fastgen caption"), ("edit", "say with --prompt how to edit it")):
        with pytest.raises(SettingsError, match=words):
            rows_file(path, task)
    assert [row.fields() for row in read(path)] == [{"image": str(path)}] and estimate(path) == 1
