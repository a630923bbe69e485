"""The LoRAs of rows are found, checked against the model and named in errors."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from fastgen.config.optimizations import Optimizations, Quantize, Shard
from fastgen.input import stamps
from fastgen.input.loras import refuse
from fastgen.input.readers.rows import Row
from fastgen.input.requests import Intake, input_paths
from fastgen.resolver import resolve
from fastgen.types import Bucket, Failed
from tests.input.weights.conftest import write

Q = "transformer.transformer_blocks.0.attn.to_q"
GOOD = {f"{Q}.lora_A.weight": (4, 128), f"{Q}.lora_B.weight": (128, 4)}
CLIP = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.fixture
def read(tmp_path, monkeypatch):
    """read(lora) -> the request of a row with this field, or why it failed."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "rows.jsonl").write_text("{}")
    for name in ("a.safetensors", "b:2.safetensors"):
        write(tmp_path / "rows" / name, GOOD)
    write(tmp_path / "rows" / "narrow.safetensors", GOOD | {f"{Q}.lora_A.weight": (4, 64)})
    clip = {f"{CLIP}.lora_down.weight": (4, 96), f"{CLIP}.lora_up.weight": (96, 4)}
    write(tmp_path / "rows" / "clip.safetensors", GOOD | clip)
    monkeypatch.chdir(tmp_path)
    settings = resolve("t2i", tmp_path / "rows" / "rows.jsonl", out=tmp_path / "out", model="tiny", gpus="cpu")
    intake = Intake(settings)

    def one(lora):
        row = Row(1, json.dumps({"prompt": "a red circle", "lora": lora}).encode())
        return intake.read(row, intake.identify(row))

    one.settings, one.folder = settings, tmp_path / "rows"
    return one


@pytest.mark.parametrize(
    ("lora", "want"),
    [
        ("a.safetensors", [("a", 1.0)]),
        ("a", [("a", 1.0)]),
        ("a.safetensors:0.5", [("a", 0.5)]),
        ("a:-1", [("a", -1.0)]),
        ("b:2", [("b:2", 1.0)]),
        ("b:2:0.5", [("b:2", 0.5)]),
        ({"path": "a", "scale": 0.5}, [("a", 0.5)]),
        ({"name": "a"}, [("a", 1.0)]),
        (["b:2:3", {"path": "a", "scale": 2}], [("b:2", 3.0), ("a", 2.0)]),
        ([], []),
        ("", []),
        (None, []),
    ],
    ids=json.dumps,
)
def test_what_a_row_may_say(read, lora, want):
    """Relative paths start at the folder of the rows."""
    request = read(lora)
    assert request.loras == tuple((str(read.folder / f"{name}.safetensors"), scale) for name, scale in want)
    assert Bucket.of(request).loras == request.loras
    assert request.read_paths == input_paths({"lora": lora}, read.settings) == tuple(path for path, _ in request.loras)


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ("nothing", "nothing: no such file; give PATH or PATH:SCALE"),
        ("a:nan", "the scale of a must be a finite number"),
        ("a\0b", "no such file"),
        (5, 'write "PATH", "PATH:SCALE"'),
        ([["a"]], 'write "PATH"'),
        ({"path": "a", "weight": 2}, "it has `weight`; write path and scale"),
        ({"path": "a", "scale": "2"}, "the scale of a must be a finite number"),
        (["a"] * 17, "17 LoRAs; the most is 16"),
        ("narrow", "narrow.safetensors: 1 of 2 tensors do not fit this model"),
        ("clip", "clip.safetensors changes text_encoder too, which rows cannot have apart; give it as --lora"),
    ],
    ids=lambda value: json.dumps(value)[:30],
)
def test_what_is_refused_and_why(read, lora, words):
    failed = read(lora)
    assert isinstance(failed, Failed) and failed.field == "lora"
    assert words in failed.message


def test_the_content_of_a_file_belongs_to_the_row(read):
    request = read("a")
    (before,) = stamps.of_request(request)
    assert not stamps.changed(request.read_paths[0], before)
    write(read.folder / "a.safetensors", GOOD | {f"{Q}.alpha": ()})
    assert stamps.changed(request.read_paths[0], before)


def test_choices_that_exclude_it(read):
    settings = read.settings
    assert refuse(settings) == ""
    for choice, words in (
        (Optimizations(quantize=Quantize("8bit")), "quantized ones cannot be changed; leave --quantize out"),
        (Optimizations(shard=Shard("context")), "--parallel context"),
    ):
        assert words in refuse(replace(settings, optimizations=choice))
