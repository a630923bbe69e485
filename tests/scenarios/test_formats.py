"""Every kind of INPUT through every task, fresh and resumed, on one open engine."""

from __future__ import annotations

import base64
import io
import json
from unittest import mock

import pytest
from PIL import Image

import fastgen
from fastgen.cli import input_given
from tests.conftest import read_lines
from tests.input.readers.test_formats import as_csv, as_parquet, as_tar, compressed

COLORS = ("red", "green", "blue")


def picture(color) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def session():
    with fastgen.Session() as session:
        yield session


@pytest.fixture
def folder(tmp_path):
    """Three pictures and tables that name them."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for color in COLORS:
        (pictures / f"{color}.png").write_bytes(picture(color))
    return tmp_path


def rows(task) -> list[dict]:
    prompt = {} if task == "caption" else {"prompt": "make"}
    return [
        {"id": color, **{k: f"{v} {color}" for k, v in prompt.items()}, "image": f"pictures/{color}.png"}
        for color in COLORS
    ]


def jsonl(folder, task):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(task)))
    return folder / "rows.jsonl"


def written(name, data):
    def write(folder, task):
        (folder / name).write_bytes(data(rows(task)))
        return folder / name

    return write


def txt(folder, task):
    (folder / "prompts.txt").write_text("".join(f"make {color}\n" for color in COLORS))
    return folder / "prompts.txt"


def tar(folder, task):
    members = {}
    for row, color in zip(rows(task), COLORS, strict=True):
        members[f"{color}.json"] = json.dumps({k: v for k, v in row.items() if k != "image"}).encode()
        members[f"{color}.png"] = picture(color)
    (folder / "shard.tar").write_bytes(as_tar(members))
    return folder / "shard.tar"


def bytes_in_parquet(folder, task):
    table = [
        {**row, "image": {"bytes": picture(color), "path": None}} for row, color in zip(rows(task), COLORS, strict=True)
    ]
    (folder / "rows.parquet").write_bytes(as_parquet(table))
    return folder / "rows.parquet"


def imagefolder(folder, task):
    table = [{"file_name": row["image"].partition("/")[2], "edit_prompt": row.get("prompt")} for row in rows(task)]
    if task == "t2i":
        table = [{"file_name": row["file_name"], "text": row["edit_prompt"]} for row in table]
    (folder / "pictures/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder / "pictures"


def saved(folder, task):
    datasets = pytest.importorskip("datasets")
    table = [{**row, "image": str(folder / row["image"])} for row in rows(task)]
    datasets.Dataset.from_list(table).cast_column("image", datasets.Image()).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def glob(folder, task):
    for row in rows(task):
        (folder / f"part-{row['id']}.jsonl").write_text(json.dumps(row) + "\n")
    return folder / "part-*.jsonl"


def gzipped(path):
    place = path.with_name(f"{path.name}.gz")
    place.write_bytes(compressed(path.read_bytes(), ".gz"))
    path.unlink()
    return place


def folder_of_files(folder, task):
    (folder / "parts").mkdir()
    for row in rows(task):
        (folder / "parts" / f"{row['id']}.jsonl").write_text(json.dumps(row | {"image": inside(row["id"])}) + "\n")
    return folder / "parts"


def inside(color: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture(color)).decode()}"


def data_uris(folder, task):
    table = [row | {"image": inside(row["id"])} for row in rows(task)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder / "rows.jsonl"


def hub(folder, task):
    """What `datasets` would stream from the hub is saved here."""
    saved(folder, task)
    return "hf://owner/name"


def data_of_the_hub(folder, task):
    """As a clone of a data set has it, and as `fastgen export --to parquet` writes it."""
    (folder / "clone/data").mkdir(parents=True)
    (folder / "clone/README.md").write_text("a card")
    bytes_in_parquet(folder, task).rename(folder / "clone/data/train-00000.parquet")
    return folder / "clone"


def standard_input(folder, task):
    """The file that the command makes of what it is given."""
    flags = {"input": "-", "out": folder / "out", "image_root": folder}
    with mock.patch("sys.stdin", mock.Mock(buffer=io.BytesIO(jsonl(folder, task).read_bytes()))):
        input_given.as_file(task, flags, "")
    return flags["input"]


KINDS = {
    "jsonl": jsonl,
    "jsonl.gz": written("rows.jsonl.gz", lambda t: compressed(b"\n".join(json.dumps(r).encode() for r in t), ".gz")),
    "jsonl.zst": written("rows.jsonl.zst", lambda t: compressed(b"\n".join(json.dumps(r).encode() for r in t), ".zst")),
    "utf-16": written("rows.jsonl", lambda t: "\r\n".join(json.dumps(r) for r in t).encode("utf-16")),
    "json": written("rows.json", lambda t: json.dumps(t, indent=1).encode()),
    "json by id": written("rows.json", lambda t: json.dumps({r["id"]: r for r in t}).encode()),
    "csv": written("rows.csv", as_csv),
    "tsv": written("rows.tsv", lambda t: as_csv(t, "\t")),
    "parquet": written("rows.parquet", as_parquet),
    "bytes in parquet": bytes_in_parquet,
    "webdataset": tar,
    "imagefolder": imagefolder,
    "save_to_disk": saved,
    "glob": glob,
    "txt": txt,
    "pictures": lambda folder, task: folder / "pictures",
    "pictures by a pattern": lambda folder, task: folder / "pictures/*.png",
    "data of the hub": data_of_the_hub,
    "webdataset.gz": lambda folder, task: gzipped(tar(folder, task)),
    "folder of files": folder_of_files,
    "data uris": data_uris,
    "hub": hub,
    "standard input": standard_input,
}
PICTURES = ("pictures", "pictures by a pattern")
CANNOT = {("txt", "edit"), ("txt", "caption"), *((kind, "t2i") for kind in PICTURES)}
"""A prompt per line has no pictures, and a folder of pictures no prompts."""


CASES = [(kind, task) for kind in KINDS for task in ("t2i", "edit", "caption") if (kind, task) not in CANNOT]


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_every_kind_of_input_through_every_task_fresh_and_resumed(session, folder, kind, task, monkeypatch):
    given, out = KINDS[kind](folder, task), folder / "out"
    if kind == "hub":
        datasets = pytest.importorskip("datasets")
        data = datasets.load_from_disk(str(folder / "saved"))
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: data.to_iterable_dataset())
    flags = {"prompt": "make it night"} if kind in PICTURES and task == "edit" else {}
    flags |= {"output_key": "made"} | ({"image_root": folder} if kind == "standard input" else {})

    def run(**more) -> list:
        settings = fastgen.resolve(task, given, out=out, backend="fake", gpus="cpu", size=_size(task), **flags, **more)
        return [result for result in session.generate(settings) if not result.earlier]

    first = run(limit=2)
    assert [type(result) for result in first] == [fastgen.Done] * 2, first
    second = run()
    assert len(second) == 1 and isinstance(second[0], fastgen.Done), "only the third row was left"
    table = read_lines(out / "results.jsonl")
    assert [row["fastgen"]["status"] for row in table] == ["done"] * 3 and run() == []
    for row in table:
        if task == "caption":
            assert row["made"] == "1 pictures"
        else:
            assert all((out / path).is_file() for path in row["made"])
    if kind not in ("txt", "imagefolder", *PICTURES):
        assert [row["id"] for row in table] == (sorted(COLORS) if kind in ("glob", "folder of files") else list(COLORS))
    ids = {row["fastgen"]["id"] for row in table}
    assert len(ids) == 3 and len(list((out / "images").iterdir())) == (0 if task == "caption" else 3)


def _size(task):
    return None if task == "caption" else "64x64"


def test_a_run_folder_of_jsonl_rows_goes_on_with_the_same_rows_as_parquet(session, folder):
    """Which row is which does not depend on the format, so a table may change its format between two runs."""
    flags = {"backend": "fake", "gpus": "cpu", "out": folder / "out", "size": "64x64"}
    table = [{"prompt": f"p{n}", "mine": [1.5, None, "x"]} for n in range(3)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    assert len(list(session.generate(fastgen.resolve("t2i", folder / "rows.jsonl", **flags)))) == 3
    (folder / "mine.parquet").write_bytes(as_parquet([{"prompt": f"p{n}"} for n in range(3)]))
    (folder / "mine.json").write_text(json.dumps(table))
    again = list(session.generate(fastgen.resolve("t2i", folder / "mine.json", **flags)))
    assert [result.earlier for result in again] == [True] * 3 and [result.row for result in again] == table
    assert len(list(session.generate(fastgen.resolve("t2i", folder / "mine.parquet", **flags)))) == 3, "other content"


def test_a_near_miss_is_named_and_strict_refuses_it(session, rows_file, tmp_path):
    flags = {"backend": "fake", "gpus": "cpu", "out": tmp_path / "out", "size": "64x64"}
    foreign = {"id": "a", "prompt": "p", "num_inference_steps": 2, "guidance_scale": 9.0}
    path = rows_file([foreign, {"prompt": "q", "stpes": 3}])
    events: list[dict] = []
    settings = fastgen.resolve("t2i", path, **flags)
    results = session.generate(settings, emit=lambda event, **facts: events.append(facts))
    done = {result.id: result for result in results}["a"]
    assert (done.params.steps, done.params.guidance) == (2, 9.0)
    said = [facts["message"] for facts in events if "message" in facts]
    assert "`steps` is read from the column `num_inference_steps`" in said
    assert any("`stpes`" in message for message in said)
    strict = fastgen.resolve("t2i", path, **{**flags, "out": tmp_path / "strict"}, strict=True)
    with pytest.raises(fastgen.SettingsError, match="--strict: row 2 has the field `stpes`"):
        list(session.generate(strict))
    with pytest.raises(fastgen.SettingsError, match="--strict"):
        fastgen.explain(strict)


def test_commands_chain_from_any_folder(session, folder, monkeypatch):
    """Pictures -> caption -> t2i -> edit -> caption, each reading the table of the one before."""
    base = {"backend": "fake", "gpus": "cpu"}

    def run(task, given, name, **flags) -> list[dict]:
        monkeypatch.chdir(folder if name != "edited" else "/")
        settings = fastgen.resolve(task, given, out=folder / name, **base, **flags)
        assert all(isinstance(result, fastgen.Done) for result in session.generate(settings))
        return read_lines(folder / name / "results.jsonl")

    captions = run("caption", "pictures", "captions")
    again = run("caption", folder / "captions/results.jsonl", "again", output_key="second")
    assert [row["second"] for row in again] == ["1 pictures"] * 3, "input paths of a table stay readable"
    pictures = run("t2i", folder / "captions/results.jsonl", "made", size="64x64")
    assert [row["images"] for row in pictures] and all("width" in row["fastgen"] for row in pictures)
    edited = run(
        "edit", folder / "made/results.jsonl", "edited", prompt="make it blue", size="64x64", image_key="images"
    )
    last = run("caption", folder / "edited/results.jsonl", "last", image_key="edited_images", output_key="text")
    assert [row["text"] for row in last] == ["1 pictures"] * 3 and len(captions) == len(edited) == 3
