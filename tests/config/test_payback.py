"""Whether a run compiles: by its length, with the profile's figures."""

from __future__ import annotations

import json

import pytest

from fastgen.config import hardware, payback
from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Compile, Offload, Optimizations, Quantize, Sets
from fastgen.config.optimizations import resolve as choose
from fastgen.config.profile import Payback
from fastgen.errors import SettingsError
from fastgen.opt import compile
from fastgen.resolver import resolve

FIGURES = Payback(cost_s=90.0, saved_s=0.05)
AUTO = Optimizations(compile=Compile.parse("auto"))


@pytest.mark.parametrize(("work", "on"), [(1790.0, False), (1810.0, True)])
def test_what_it_saves_must_be_more_than_it_costs(work, on):
    found, note = payback.settle(AUTO, FIGURES, work)
    assert found.compile == Compile(on)
    assert bool(note) != on and (on or "about 90 s" in note)


def test_a_flag_is_never_overruled():
    for word in (True, False):
        chosen = choose("", Sets(), "", {"compile": word})
        assert payback.settle(chosen, FIGURES, 0.0) == (chosen, "")


def test_quantized_products_need_it():
    found, note = payback.settle(Optimizations(compile=AUTO.compile, quantize=Quantize("fp8")), FIGURES, 1.0)
    assert found.compile == Compile(True) and not note


def test_what_is_refused_here_is_left_out():
    reason = compile.refuse(
        Gpu(0, "a", "NVIDIA H100", 79.6, "9.0"), AUTO.compile, Optimizations(offload=Offload("group"))
    )
    found, note = payback.settle(AUTO, FIGURES, 1e6, reason)
    assert found.compile == Compile() and "blocks that come and go" in note


def test_without_figures_it_stays_off():
    assert payback.settle(AUTO, Payback(), 1e9) == (Optimizations(), "")


def test_words():
    assert AUTO.words()["compile"] == "auto" and Compile.parse(True) == Compile(True)
    with pytest.raises(SettingsError, match="true, false or auto"):
        choose("", Sets(), "", {"compile": "often"})


@pytest.mark.parametrize(("rows", "gpus", "on"), [(20, 1, False), (100, 1, True), (100, 4, False), (5000, 4, True)])
def test_the_plan_knows_the_rows(tmp_path, monkeypatch, rows, gpus, on):
    """28 steps at 1024x1024 on an H100: 90 s are paid back after 69 images on each GPU."""
    found = [Gpu(i, f"GPU-{i}", "NVIDIA H100 80GB HBM3", 79.6, "9.0") for i in range(gpus)]
    monkeypatch.setattr(hardware, "find_gpus", lambda: found)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": "a fox"}) + "\n" for _ in range(rows)))
    settings = resolve("t2i", path, out=tmp_path / "out", model="tiny", size="1024x1024", steps=28)
    assert settings.placement.profile.name == "flux-hopper"
    assert settings.optimizations.compile == Compile(on)
    assert any("not compiled" in note for note in settings.run.notes) != on
    assert settings.optimizations.attention.kernel == "best"
    left_open = resolve("t2i", out=tmp_path / "out", model="tiny", size="1024x1024", steps=28)
    assert left_open.optimizations.compile.if_it_pays, "rows from Python are not there yet"
