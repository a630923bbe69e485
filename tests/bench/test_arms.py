"""What is compared: names, refusals, arms that would do the same."""

from __future__ import annotations

import pytest

from fastgen.bench import arms as module
from fastgen.bench.arms import arms, parse
from fastgen.bench.work import Work
from fastgen.config.optimizations import Options, Quantize
from fastgen.errors import SettingsError
from fastgen.resolver import resolve
from tests.resolver.gpus import RTX_4090, resolved


@pytest.fixture
def settings(tmp_path):
    return resolve("t2i", out=tmp_path, model="tiny", gpus="cpu")


def test_all_arms_of_a_cpu(settings):
    found = {arm.name: arm for arm in arms(settings)}
    names = list(found)
    assert names[:2] == ["diffusers", "plain"] and names[-3:] == ["quality exact", "quality high", "quality fast"]
    assert set(module.SINGLES) <= set(names)
    assert found["diffusers"].player == "diffusers" and found["plain"].player == "fastgen"
    assert "CUDA" in found["attention flash3"].refused and "nothing to offload" in found["offload text"].refused
    assert found["quality exact"].same_as == "plain"
    runs = [name for name, arm in found.items() if not arm.refused and not arm.same_as]
    assert {
        "compile",
        "quantize 8bit",
        "quantize fp8",
        "quantize nvfp4",
        "cache first-block",
        "quality high",
        "quality fast",
    } <= set(runs)


def test_a_replica_has_an_arm_for_each_way_to_share_the_work(tmp_path):
    pair = resolve("t2i", out=tmp_path, model="tiny", gpus="cpu:2", gpus_per_replica=2)
    found = {arm.name: arm for arm in arms(pair)}
    sizes = {name: arm.settings.placement.devices[0].size for name, arm in found.items()}
    assert [name for name, size in sizes.items() if size == 2] == ["parallel shard", "parallel context"]
    assert not found["parallel context"].refused
    three = resolve("t2i", out=tmp_path, model="tiny", gpus="cpu:3", gpus_per_replica=3)
    [_, context] = arms(three, ("parallel context",))
    assert "4 attention heads cannot be divided among 3 devices" in context.refused


def test_a_name_is_the_choices(settings):
    [_, arm] = arms(settings, ("compile + quantize fp8,text:8bit + cache first-block:0.2",))
    speed = arm.settings.optimizations
    assert speed.compile.on and speed.quantize == Quantize("fp8", "8bit")
    assert (speed.stepcache.kind, speed.stepcache.threshold) == ("first-block", 0.2)
    assert Options(**parse("quantize fp8,text:8bit + compile")[1]) == Options(quantize="fp8,text:8bit", compile=True)
    assert (
        arms(settings, ("quality fast",))[1].settings.optimizations.stepcache.word()
        == settings.placement.profile.opt.fast.cache
    )
    assert [arm.name for arm in arms(settings, ("plain", "diffusers"))] == ["diffusers", "plain"]


@pytest.mark.parametrize("name", ["fast", "quality best", "compile yes", "quantize", "cache sometimes", "plain + so"])
def test_a_name_that_means_nothing(settings, name):
    with pytest.raises(SettingsError):
        arms(settings, (name,))


def test_on_a_gpu_what_needs_compilation_gets_it(settings, monkeypatch):
    from msgspec.structs import replace

    from fastgen.config.hardware import Device, Gpu

    hopper = Device("cuda:0", "cuda", 8, Gpu(0, "GPU-1", "NVIDIA H100 80GB HBM3", 80.0, "9.0"))
    found = {arm.name: arm for arm in arms(replace(settings, placement=replace(settings.placement, devices=(hopper,))))}
    assert not found["compile + quantize fp8"].refused and "quantize fp8" not in found
    assert not found["offload text"].refused
    assert "needs a Blackwell GPU" in found["compile + quantize nvfp4"].refused
    blackwell = Device("cuda:0", "cuda", 8, Gpu(0, "GPU-1", "NVIDIA B200", 179.0, "10.0"))
    placement = replace(settings.placement, devices=(blackwell,))
    found = {arm.name: arm for arm in arms(replace(settings, placement=placement))}
    assert not any(found[f"compile + quantize {kind}"].refused for kind in ("mxfp8", "nvfp4", "fp8"))


def test_arms_are_fitted_into_the_memory(tmp_path, monkeypatch):
    """What an arm names stays, and its weights go where they fit; a quality is what a user gets."""
    settings = resolved(tmp_path, "FLUX.1-dev", RTX_4090, batch_size=1)
    monkeypatch.setattr("fastgen.opt.quantize.unfit", lambda name: "")
    monkeypatch.setattr("fastgen.config.fit.card.free_host_gib", lambda: 60.0)
    names = ("plain", "compile", "quantize 8bit", "offload text", "quality exact", "quality fast")
    found = {arm.name: arm for arm in arms(settings, names)}
    chosen = {name: arm.settings.optimizations for name, arm in found.items() if name in names and not arm.refused}
    words = {name: (one.quantize.word(), one.offload.kind) for name, one in chosen.items()}
    assert words == {
        "plain": ("none", "group"),
        "quantize 8bit": ("8bit", "text"),
        "quality exact": ("none", "group"),
        "quality fast": ("fp8", "text"),
    }
    assert "bfloat16 with everything on the GPU needs" in found["compile"].refused
    assert "bfloat16 with --offload text needs" in found["offload text"].refused


def test_a_rounds_rows_depend_on_its_number_alone(settings, tmp_path):
    work = Work(settings, tmp_path / "one")
    rows, wishes = work.rows(0, 12)
    assert (rows, wishes) == Work(settings, tmp_path / "two").rows(0, 12)
    assert rows[:4] == work.rows(0, 4)[0] and rows[0] != work.rows(1, 1)[0][0] | {"id": "0-0"}
    assert len({row["id"] for row in rows}) == 12 and len({row["prompt"] for row in rows}) > 10
    assert all(wishes[row["id"]] is not None for row in rows), "prompts are in the grammar of the scenes"


def test_rows_of_edits_start_from_pictures_of_their_size(tmp_path):
    from PIL import Image

    work = Work(resolve("edit", out=tmp_path, model="tiny", gpus="cpu", size="192x128"), tmp_path / "inputs")
    for row in work.rows(0, 3)[0]:
        with Image.open(row["image"]) as picture:
            assert picture.size == (192, 128) and row["size"] == "192x128"
