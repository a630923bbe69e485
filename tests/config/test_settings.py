"""What a run is: which settings a result depends on, and which an engine is opened with."""

from __future__ import annotations

import msgspec
import pytest

from fastgen.config import backends
from fastgen.resolver import resolve


@pytest.fixture
def rows(rows_file):
    return rows_file([{"prompt": "a"}])


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


# Which parts of Settings say what a result depends on, and which say what an engine is opened with.
CHANGES_RESULTS = {
    "t2i": {"task", "backend", "model", "rows", "image", "engine", "optimizations"},
    "caption": {"task", "backend", "model", "rows", "text"},
}
OPENS_AN_ENGINE = {"backend", "model", "engine", "optimizations", "placement", "endpoint"}
SAYS_NOTHING_OF_RESULTS = {
    # its name and the fingerprint of its files do
    "model": {"path", "family", "defaults", "grid", "pipeline", "synthetic"},
    "backend": set(msgspec.structs.asdict(backends.get("fake"))) - {"name"},
    # where files are, what they are called, and what prompt and prompt_key say
    "rows": {"other_root", "strict", "name", "asks_text"},
    # rounding at most
    "optimizations": {
        "quality",
        "layout",
        "shard",
        "offload",
        "attention",
        "norm_rope",
        "compile",
        "cuda_graphs",
        "why",
    },
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
