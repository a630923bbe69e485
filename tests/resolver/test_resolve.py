"""What the user asked for is checked before any work, and every default is filled in."""

from __future__ import annotations

import math

import pytest

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
    assert settings.model.name == "tiny" and len(settings.run.notes) == 1 and "z-image" in settings.run.notes[0]


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


@pytest.fixture
def keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "test-key")


def test_a_batch_api_takes_many_rows_at_half_the_price(tmp_path, keys):
    direct = resolve("t2i", None, out=tmp_path, backend="openai")
    batched = resolve("t2i", None, out=tmp_path, backend="openai", batch_api=True, fallback="gemini,local:tiny")
    assert [link.durable for link in batched.route] == [True, True, False] and not direct.durable
    assert (direct.batch_for(0), batched.batch_for(0)) == (1, 128)
    assert (direct.endpoint.max_inflight, batched.endpoint.max_inflight) == (64, 16)
    assert direct.fingerprint() == batched.fingerprint(), "results are the same, so a run may go on either way"
    few = resolve("caption", None, out=tmp_path, backend="openai", batch_api=True, batch_rows=7, max_inflight=2)
    assert (few.batch_for(0), few.endpoint.max_inflight) == (7, 2)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"batch_api": True, "backend": "local", "model": "tiny"}, "--batch-api: only for --backend openai"),
        ({"batch_api": True, "backend": "openai", "rpm": 5}, "--rpm: a Batch API has no requests per minute"),
        ({"batch_api": True, "backend": "openai", "base_url": ["http://a", "http://b"]}, "for one --base-url"),
        ({"batch_rows": 5, "backend": "openai"}, "--batch-rows 5: only with --batch-api"),
        ({"batch_rows": 0, "backend": "openai", "batch_api": True}, "--batch-rows"),
        ({"batch_rows": 50_001, "backend": "openai", "batch_api": True}, "--batch-rows"),
    ],
)
def test_what_a_batch_api_cannot_have(tmp_path, keys, flags, words):
    with pytest.raises(SettingsError, match=words):
        resolve("t2i", None, out=tmp_path, **flags)
