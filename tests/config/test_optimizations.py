"""What --quality and the flags beside it choose, and why; who refuses which of their words."""

from __future__ import annotations

import pytest

from fastgen import opt, providers
from fastgen.config import optimizations, profile
from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Compile, Quantize, StepCache
from fastgen.errors import SettingsError
from fastgen.resolver import resolve
from fastgen.scheduler.routing import Group
from fastgen.types import ImageParams, Request

API = {"base_url": "http://127.0.0.1:9/v1"}
SETS = optimizations.Sets(
    exact=optimizations.Options(attention="math", compile=True),
    high=optimizations.Options(cache="taylorseer:0.2"),
    fast=optimizations.Options(cache="first-block:0.4", quantize="fp8,text:8bit"),
)


def tiny(**flags):
    return resolve("t2i", model="tiny", gpus="cpu", **flags)


def test_each_quality_takes_over_from_the_one_before():
    exact, high, fast = (optimizations.resolve(quality, SETS, "profile 'p'", {}) for quality in optimizations.QUALITIES)
    assert [(s.attention.kernel, s.compile.on, s.stepcache.word()) for s in (exact, high, fast)] == [
        ("math", True, "none"),
        ("math", True, "taylorseer:0.2"),
        ("math", True, "first-block:0.4"),
    ]
    assert (fast.quantize, high.quantize) == (Quantize("fp8", "8bit"), Quantize())
    assert fast.stepcache == StepCache("first-block", 0.4, asked_as="first-block:0.4")
    assert fast.why["attention"] == "profile 'p', quality exact" and fast.why["cache"] == "profile 'p', quality fast"
    assert optimizations.resolve("", SETS, "p", {}).quality == "exact"


def test_a_flag_goes_before_the_profile():
    chosen = optimizations.resolve(
        "fast", SETS, "p", {"compile": False, "quantize": "text:4bit", "cache": "none", "attention": ""}
    )
    assert (chosen.compile, chosen.quantize, chosen.stepcache) == (Compile(), Quantize("none", "4bit"), StepCache())
    assert chosen.why["compile"] == "--no-compile" and chosen.why["quantize_text"] == "--quantize"
    lines = chosen.explain()
    assert "compile off (--no-compile)" in lines and "quality fast (--quality fast)" in lines
    assert not any(line.startswith("offload") for line in lines)


def test_what_changes_pictures_is_in_the_fingerprint():
    plain = tiny().fingerprint()
    assert (
        tiny(quality="exact").fingerprint()
        == tiny(compile=True).fingerprint()
        == tiny(attention="math").fingerprint()
        == plain
    )
    high = tiny(quality="high")
    assert high.fingerprint() == tiny(cache=high.optimizations.stepcache.word()).fingerprint() != plain
    for flags in ({"quantize": "8bit"}, {"quantize": "text:8bit"}, {"cache": "first-block"}, {"quality": "fast"}):
        assert tiny(**flags).fingerprint() != plain


def test_a_profile_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[match]\ndevice = "cuda"\n[batch]\n"128x128" = 3\n[opt.exact]\nattention = "math"\n[measured]\nstatus = '
        '"unmeasured"\n'
    )
    settings = tiny(profile=path)
    assert (
        settings.placement.profile.name,
        settings.optimizations.attention.kernel,
        settings.batch_for(128 * 128),
    ) == (
        "mine",
        "math",
        3,
    )
    assert settings.placement.profile.why == f"--profile {path}"
    assert "the profile has nothing for it" in tiny(profile=path, quality="fast").run.notes[-1]
    with pytest.raises(SettingsError, match="--profile nowhere"):
        tiny(profile="nowhere.toml")
    path.write_text(path.read_text().replace('attention = "math"', 'attention = "flash3"'))
    with pytest.raises(
        SettingsError, match=r"--attention flash3: needs a CUDA GPU.*chosen by profile 'mine', quality exact"
    ):
        tiny(profile=path)
    for line in ("[opt.exact]\nmagic = 1", "[opt.slow]\n", '[opt.high]\ncompile = "yes"'):
        path.write_text(f'[match]\n[batch]\n"128x128" = 3\n{line}\n[measured]\nstatus = "unmeasured"\n')
        with pytest.raises(SettingsError, match=r"profile mine\.toml"):
            profile.load(path)


@pytest.mark.parametrize("path", sorted(profile.FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_profile_chooses_what_its_hardware_can(path, monkeypatch):
    monkeypatch.setattr("fastgen.opt.quantize.unfit", lambda name: "")
    match, loaded = profile.load(path)
    gpus = {"8.[067]": "8.6", "9.*": "9.0", "10.*": "10.0", "12.*": "12.0"}
    cc = gpus.get(match.compute_capability, match.compute_capability)
    gpu = Gpu(0, "GPU-a", "a GPU", 80.0, cc if cc != "*" else "7.0") if match.device == "cuda" else None
    for quality in optimizations.QUALITIES:
        assert not opt.refuse(optimizations.resolve(quality, loaded.opt, "p", {}), gpu)


def request(**words):
    return Request("a", "t2i", ("a cat",), ImageParams(128, 128, 4, 3.5, 0, 1, **words), (128, 128))


def test_quality_is_one_word_for_two():
    """For the engine here it chooses optimizations; for an API it is the API's."""
    local = tiny(quality="high")
    assert local.optimizations.quality == "high" and not local.image.options
    assert not providers.refuse(local, request(quality="high")) and not providers.refuse(local, request())
    assert "this run's is high (--quality)" in providers.refuse(local, request(quality="fast"))
    assert "knows exact, high, fast; for low use --backend openai" in providers.refuse(local, request(quality="low"))
    with pytest.raises(SettingsError, match="--quality low: the engine on this machine knows exact, high, fast"):
        tiny(quality="low")
    both = tiny(quality="high", fallback="openai@http://127.0.0.1:9/v1")
    assert both.optimizations.quality == "high" and not both.image.options
    assert both.fallbacks[0].image.options == {"quality": "high"}
    assert both.fallbacks[0].optimizations == optimizations.Optimizations()
    here, there = Group(both, 0), Group(both.fallbacks[0], 1)
    assert here.view(request()).params.quality == "" and there.view(request()).params.quality == "high"
    assert there.view(request(quality="low")).params.quality == "low"
    api = resolve("t2i", backend="openai", quality="high", **API)
    assert api.image.options == {"quality": "high"} and "cache" not in api.fingerprint()


@pytest.mark.parametrize("flags", [{"cache": "none"}, {"compile": False}, {"profile": profile.FOLDER / "default.toml"}])
def test_only_the_engine_here_takes_them(flags):
    with pytest.raises(SettingsError, match=rf"--{next(iter(flags))}: only the engine on this machine"):
        resolve("t2i", backend="openai", **API, **flags)
    assert (
        resolve("t2i", backend="openai", fallback="local", gpus="cpu", model="auto", **API, **flags)
        .fallbacks[0]
        .optimizations
    )
