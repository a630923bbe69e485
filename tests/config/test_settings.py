"""What the user asked for is checked before any work, and every default is filled in."""

from __future__ import annotations

import inspect
import math

import msgspec
import pytest

from fastgen.config import backends
from fastgen.errors import SettingsError
from fastgen.resolver import resolve


@pytest.fixture
def rows(rows_file):
    return rows_file([{"prompt": "a"}])


def test_the_model_gives_the_defaults(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    t2i = resolve("t2i", rows, model="tiny", gpus="cpu")
    assert (t2i.image.size, t2i.image.steps, t2i.image.guidance, t2i.engine.dtype) == ((128, 128), 12, 3.5, "float32")
    assert (t2i.image.n, t2i.rows.seed, t2i.run.batch_size, t2i.run.limit, t2i.image.format) == (1, 0, 0, 0, "png")
    assert (t2i.rows.output_key, t2i.run.out, t2i.rows.image_root) == ("images", str(tmp_path / "fastgen-runs/t2i"), "")
    edit = resolve("edit", rows, model="tiny", gpus="cpu")
    assert (edit.image.size, edit.rows.output_key) == (None, "edited_images")
    assert edit.rows.image_root == str(rows.parent)
    assert edit.run.out == str(tmp_path / "fastgen-runs/edit")


def test_auto_without_a_gpu_says_what_it_took(rows):
    settings = resolve("t2i", rows, gpus="cpu")
    assert settings.model.name == "tiny" and len(settings.run.notes) == 1 and "FLUX.1-dev" in settings.run.notes[0]


def test_what_is_asked_for_is_taken(rows, tmp_path):
    lora = tmp_path / "a:b.safetensors"
    lora.touch()
    settings = resolve(
        "t2i",
        rows,
        backend="fake",
        gpus="cpu:2",
        size="96X64",
        steps=3,
        guidance=2,
        n=4,
        seed=2**53 - 1,
        dtype="BF16",
        batch_size="7",
        format="JPG",
        output_key="pictures",
        image_root=tmp_path,
        limit=5,
        max_sequence_length=64,
        lora=[str(lora), f"{lora}:-0.5"],
        fresh=True,
        retry_failed=True,
    )
    assert (settings.image.size, settings.image.steps, settings.image.guidance, settings.image.n) == (
        (96, 64),
        3,
        2.0,
        4,
    )
    assert (settings.rows.seed, settings.engine.dtype, settings.run.batch_size, settings.image.format) == (
        2**53 - 1,
        "bfloat16",
        7,
        "jpeg",
    )
    assert settings.engine.loras == ((str(lora), 1.0), (str(lora), -0.5))
    assert (settings.run.limit, settings.engine.max_sequence_length, settings.run.fresh, settings.run.retry_failed) == (
        5,
        64,
        True,
        True,
    )
    assert [device.name for device in settings.placement.devices] == ["cpu:0", "cpu:1"] and settings.batch_for(
        10**6
    ) == 7


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"backend": "cloud"}, "--backend cloud"),
        ({"gpus": "cpu:0"}, "--gpus cpu:0"),
        ({"size": "64"}, "--size 64.*1024x768"),
        ({"size": "100x64"}, "--size.*96x64"),
        ({"size": "0x0"}, "at least 16"),
        ({"size": "9000x16"}, "8192"),
        ({"size": "²x64"}, "--size.*1024x768"),
        ({"steps": 0}, "--steps 0.*1 to 1000"),
        ({"steps": True}, "--steps"),
        ({"steps": 2.5}, "--steps"),
        ({"guidance": math.nan}, "--guidance nan"),
        ({"guidance": -1}, "--guidance -1"),
        ({"guidance": 10**400}, "--guidance"),
        ({"n": 0}, "--n 0"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**53}, "--seed"),
        ({"dtype": "int8"}, "--dtype"),
        ({"format": "gif"}, "--format gif.*webp"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"batch_size": "many"}, "--batch-size many"),
        ({"batch_size": "²"}, "--batch-size"),
        ({"batch_size": 2000}, "1 to 1024"),
        ({"limit": 0}, "--limit 0"),
        ({"output_key": "prompt"}, "--output-key"),
        ({"output_key": ""}, "--output-key"),
        ({"output_key": "fastgen"}, "--output-key"),
        ({"output_key": "id"}, "--output-key"),
        ({"image_root": "nowhere"}, "--image-root"),
        ({"lora": ["none.safetensors:1"]}, "--lora.*no such file"),
        ({"transformer": "none.safetensors"}, "--transformer"),
        ({"max_sequence_length": 513}, "--max-sequence-length"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_is_an_error_with_the_flag_and_the_mend(rows, flags, words):
    with pytest.raises(SettingsError, match=words):
        resolve("t2i", rows, **{"backend": "fake", "gpus": "cpu", **flags})


def test_an_edit_does_not_write_over_its_input(rows):
    with pytest.raises(SettingsError, match="--output-key 'image'"):
        resolve("edit", rows, backend="fake", gpus="cpu", output_key="image")


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
        ("rows.txt", b"{}", r"\.jsonl"),
        ("rows.csv", b"a", r"\.jsonl"),
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


def test_the_fingerprint_holds_what_changes_pictures_and_nothing_else(rows, tmp_path):
    def fingerprint(task="t2i", **flags):
        return resolve(task, rows, **{"backend": "fake", "gpus": "cpu", "out": "a", **flags}).fingerprint()

    same = fingerprint()
    for flags in (
        {"gpus": "cpu:2"},
        {"batch_size": 3},
        {"limit": 1},
        {"fresh": True},
        {"out": "b"},
        {"retry_failed": True},
        {"image_root": tmp_path.parent},
    ):
        assert fingerprint(**flags) == same, flags
    for flags in (
        {"size": "96x64"},
        {"steps": 9},
        {"guidance": 1.0},
        {"n": 2},
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"format": "webp"},
        {"output_key": "p"},
        {"max_sequence_length": 9},
        {"task": "edit"},
    ):
        assert fingerprint(**flags) != same, flags
    assert fingerprint("edit", image_root=tmp_path.parent) != fingerprint("edit")


def test_flags_and_arguments_of_resolve_have_the_same_names():
    from fastgen.cli import main

    only_shown = {"json", "quiet", "dry_run"}
    offered = [
        set(inspect.signature(command).parameters) - only_shown for command in (main.t2i, main.edit, main.caption)
    ]
    assert set.union(*offered) == set(inspect.signature(resolve).parameters) - {"task"}


# Which parts of Settings say what a result depends on, and which say what an engine is opened with.
CHANGES_RESULTS = {
    "t2i": {"task", "backend", "model", "rows", "image", "engine", "optimizations"},
    "caption": {"task", "backend", "model", "rows", "text"},
}
OPENS_AN_ENGINE = {"backend", "model", "engine", "optimizations", "placement", "endpoint"}
SAYS_NOTHING_OF_RESULTS = {
    "model": {"path", "family", "defaults", "grid", "synthetic"},  # its name and the fingerprint of its files do
    "backend": set(msgspec.structs.asdict(backends.get("fake"))) - {"name"},
    "optimizations": {"quality", "layout", "offload", "attention", "compile", "why"},  # rounding at most
}
ONLY_WHERE_THERE_ARE_PICTURES = {
    ("backend", "optimizes"),
    *(("optimizations", name) for name in ("quantize", "stepcache")),
}
SAYS_NOTHING_OF_AN_ENGINE = {"optimizations": {"why"}}


def other(value):
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case str():
            return value + "x"
        case int() | float():
            return value + 1
        case dict():
            return {**value, "quality": "other"}
        case tuple():
            return (*value, ("other", 2.0))
        case None:
            return (64, 64)
    first = value.__struct_fields__[0]
    return msgspec.structs.replace(value, **{first: other(getattr(value, first))})


def changed(settings, part, field):
    """The settings with another value there."""
    value = other(getattr(getattr(settings, part), field))
    if (part, field) == ("image", "size"):
        value = (8, 8)
    return msgspec.structs.replace(
        settings, **{part: msgspec.structs.replace(getattr(settings, part), **{field: value})}
    )


@pytest.mark.parametrize("task", ["t2i", "caption"])
def test_every_field_is_in_the_fingerprint_and_the_engine_by_the_part_that_it_stands_in(task, tmp_path, monkeypatch):
    """A new field fails here until its part, or the list of what says nothing, decides on it."""
    monkeypatch.chdir(tmp_path)
    for name in ("other", "x"):
        (tmp_path / name).write_text(name)
    where = {"base_url": "http://127.0.0.1:9/v1"} if task == "caption" else {}
    settings = resolve(task, out=tmp_path, model="tiny", gpus="cpu", **where)
    fields = msgspec.structs.asdict(settings)
    parts = {name: value for name, value in fields.items() if isinstance(value, msgspec.Struct)}
    assert set(parts) == {*CHANGES_RESULTS["t2i"], *OPENS_AN_ENGINE, "text", "run"} - {"task"}
    for part, value in parts.items():
        for field in value.__struct_fields__:
            now = changed(settings, part, field)
            results = part in CHANGES_RESULTS[task] and field not in SAYS_NOTHING_OF_RESULTS.get(part, ())
            if (part, field) in ONLY_WHERE_THERE_ARE_PICTURES:
                results = task != "caption"
            assert (now.fingerprint() != settings.fingerprint()) == results, f"{part}.{field}"
            opens = part in OPENS_AN_ENGINE and field not in SAYS_NOTHING_OF_AN_ENGINE.get(part, ())
            assert (now.engine_key() != settings.engine_key()) == opens, f"{part}.{field}"
