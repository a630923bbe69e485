"""The sizes for plans without a model on this machine are those of the published configs."""

from __future__ import annotations

import pytest

from fastgen.config import downloads
from fastgen.config.fit import published
from fastgen.config.short_names import SHORT_NAMES
from fastgen.errors import ModelError, SettingsError
from fastgen.resolver import resolve
from tests.config.test_short_names import MODELS, count
from tests.resolver.gpus import H100, RTX_3060, RTX_4090

HUB = {name: SHORT_NAMES[model.short].hub_id for name, model in MODELS.items() if model.short}


@pytest.mark.parametrize("name", HUB)
def test_they_are_counted(name):
    said, found = published.SIZES[HUB[name]], count(MODELS[name]).sizes
    for part in ("text", "clip", "vae"):
        assert getattr(said, part).all == getattr(found, part).all, part
    assert (said.transformer.all, said.transformer.by_block) == (found.transformer.all, found.transformer.by_block)
    for part in ("transformer", "text"):
        assert getattr(said, part).largest_layer == getattr(found, part).largest_layer, part
    assert (said.width, said.text_width) == (found.width, found.text_width)
    parts = (said.transformer, said.text, said.clip, said.vae)
    assert sum(part.gib("none", 2) for part in parts) == pytest.approx(found_gib(name), abs=0.06)
    assert all(part.linear <= part.all and part.bitsandbytes <= part.all for part in parts)


def found_gib(name: str) -> float:
    return SHORT_NAMES[MODELS[name].short].weights_gib


def test_every_short_name_has_sizes():
    assert {known.hub_id for known in SHORT_NAMES.values()} <= set(published.SIZES)


@pytest.fixture
def planned(monkeypatch, tmp_path):
    """planned(short name, GPU, flags) -> the settings of a plan, without the model."""
    monkeypatch.setattr("fastgen.config.fit.card.free_host_gib", lambda: 120.0)
    monkeypatch.setattr("fastgen.config.hardware.free_gpu_gib", lambda gpu: 0.0)
    monkeypatch.setattr("fastgen.opt.quantize.unfit", lambda name: "")
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)

    def planned(model, gpu, **flags):
        monkeypatch.setattr("fastgen.config.hardware.find_gpus", lambda *_: [gpu])
        with downloads.none():
            return resolve("edit" if "edit" in model else "t2i", model=model, out=tmp_path / "out", **flags)

    return planned


def refuse(name, local_files_only=False, **_):
    from huggingface_hub.errors import LocalEntryNotFoundError

    assert local_files_only
    raise LocalEntryNotFoundError("not here")


@pytest.mark.parametrize(
    ("model", "gpu", "offload"),
    [
        ("klein", H100, "none"),
        ("klein", RTX_3060, "model"),
        ("z-image", RTX_4090, "text"),
        ("qwen-image", H100, "none"),
        ("qwen-image", RTX_4090, "group"),
        ("qwen-edit", H100, "none"),
    ],
)
def test_a_plan_fits_a_model_that_is_not_here(planned, model, gpu, offload):
    settings = planned(model, gpu)
    assert settings.optimizations.offload.kind == offload and settings.optimizations.quantize.is_plain
    assert settings.fit.need.gib <= settings.fit.card.free_gib
    assert any(note.startswith("it would download ") for note in settings.run.notes)


def test_what_cannot_fit_is_refused_before_a_download(planned):
    with pytest.raises(SettingsError, match=r"--model Qwen/Qwen-Image-2512: does not fit on cuda:0") as error:
        planned("qwen-image", RTX_3060, offload="none")
    assert not isinstance(error.value, ModelError)
