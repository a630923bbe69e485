"""The recipe "a model family" of docs/design.md, followed word for word."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fastgen.backends.diffusion.backend import DiffusionBackend
from fastgen.backends.diffusion.families import FAMILIES
from fastgen.config import backends, families
from fastgen.errors import ModelError, SettingsError
from fastgen.resolver import resolve
from fastgen.types import Batch, Bucket, Done, ImageParams, Request
from tests.backends.diffusion import stripes

MODULE = "tests.backends.diffusion.stripes"


@pytest.fixture
def model(monkeypatch, tmp_path):
    """The folder of a model of the new family."""
    spec = backends.get("local")
    assert spec is not None
    monkeypatch.setitem(FAMILIES, "stripes", MODULE)
    monkeypatch.setitem(spec.engines, "stripes", spec.engines["flux"])
    monkeypatch.setitem(families.PARTS, "stripes", stripes.PARTS)
    monkeypatch.setitem(families.PIPELINES, "StripesPipeline", families.Pipeline("stripes", stripes.defaults))
    folder = tmp_path / "model"
    files = {
        "model_index.json": {"_class_name": "StripesPipeline"},
        "transformer/config.json": {},
        "vae/config.json": {"block_out_channels": [1, 1, 1, 1]},
        "text_encoder/config.json": {},
        "tokenizer/tokenizer_config.json": {},
        "tokenizer/vocab.json": {},
        "scheduler/scheduler_config.json": {},
    }
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    for part in stripes.PARTS.modules:
        (folder / part / "model.safetensors").write_bytes(b"")
    return folder


@pytest.mark.parametrize("flags", [{}, {"cache": "first-block:0.2"}, {"gpus": "cpu:2", "gpus_per_replica": 2}])
def test_rows_run_on_a_family_that_is_added(model, tmp_path, flags):
    settings = resolve("t2i", model=str(model), out=tmp_path / "out", **{"gpus": "cpu", **flags})
    assert (settings.model.family, settings.image.steps, settings.image.size) == ("stripes", 3, (64, 64))
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / ".partial").mkdir()
    backend = DiffusionBackend(settings, settings.placement.devices[0])
    backend.open()
    requests = tuple(
        Request(str(at), "t2i", ("x" * (9 * at + 1),), ImageParams(64, 64, 3 + at, 0.0, at, 1), (64, 64))
        for at in range(3)
    )
    results = backend.run(Batch(Bucket.of(requests[0]), requests))
    backend.close()
    assert all(isinstance(result, Done) for result in results)
    shades = [np.asarray(Image.open(tmp_path / "out" / result.paths[0])).mean() for result in results]
    assert shades == sorted(shades) and shades[2] - shades[0] > 80, "the longer the prompt, the brighter"


def test_what_it_does_not_have_is_refused(model, tmp_path):
    with pytest.raises(SettingsError, match="--lora and --transformer: not for models of the family stripes"):
        (tmp_path / "a.safetensors").write_bytes(b"")
        resolve("t2i", model=str(model), gpus="cpu", out=tmp_path / "out", lora=[str(tmp_path / "a.safetensors")])
    (model / "tokenizer" / "vocab.json").unlink()
    with pytest.raises(ModelError, match=r"no vocabulary in .*tokenizer"):
        resolve("t2i", model=str(model), gpus="cpu", out=tmp_path / "out")
