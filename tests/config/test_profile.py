"""A profile is data that is checked; the most specific one that matches is taken."""

from __future__ import annotations

import pytest

from fastgen.config import profile
from fastgen.config.hardware import Device, Gpu
from fastgen.errors import SettingsError

CPU = Device("cpu", "cpu", 2)
H200 = Device("cuda:0", "cuda", 2, Gpu(0, "GPU-a", "NVIDIA H200", 140.4, "9.0"))
MEASURED = '[measured]\nstatus = "measured"\ndate = "2026-01-01"\nhardware = "H200"\ncommand = "fastgen bench"\n'


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "FOLDER", tmp_path)

    def write(name, match="", batch='"512x512" = 4', measured=MEASURED):
        path = tmp_path / f"{name}.toml"
        path.write_text(f"[match]\n{match}\n[batch]\n{batch}\n{measured}")
        return path

    write("default")
    return write


def test_batch_sizes_by_pixels(write):
    _, loaded = profile.load(write("a", batch='"1024x1024" = 2\n"512x512" = 8\n"512x256" = 16'))
    expected = {1: 16, 512 * 256: 16, 512 * 256 + 1: 8, 512 * 512: 8, 600 * 600: 2, 1024 * 1024: 2, 2048 * 2048: 1}
    assert {pixels: loaded.batch_for(pixels) for pixels in expected} == expected


def test_the_most_specific_profile_is_taken(write):
    write("cuda", 'device = "cuda"')
    write("hopper", 'device = "cuda"\ncompute_capability = "9.*"')
    write("large", 'device = "cuda"\ncompute_capability = "9.*"\nleast_memory_gib = 100')
    write("larger", 'device = "cuda"\ncompute_capability = "9.*"\nfamily = "flux"\nleast_memory_gib = 200')
    write("other", 'device = "cuda"\ncompute_capability = "8.*"\nfamily = "flux"\nmodel = "*dev"')
    chosen = profile.choose("flux", "FLUX.1-dev", H200)
    assert chosen.name == "large" and "compute_capability 9.*" in chosen.why and "least_memory_gib 100" in chosen.why
    assert profile.choose("flux", "FLUX.1-dev", CPU).name == "default"
    # among equals the one for most memory, even if another was measured later
    write(
        "least",
        'device = "cuda"\ncompute_capability = "9.*"\nleast_memory_gib = 14',
        measured=MEASURED.replace("01-01", "12-31"),
    )
    assert profile.choose("flux", "FLUX.1-dev", H200).name == "large"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"match": 'gpu = "H200"'}, "gpu"),
        ({"batch": ""}, "batch"),
        ({"batch": '"512x512" = 0'}, "at least 1"),
        ({"batch": '"large" = 4'}, "large"),
        ({"batch": '"512" = 4'}, "512"),
        ({"batch": '"512x512" = "4"'}, "batch"),
        ({"measured": ""}, "measured"),
        ({"measured": '[measured]\nstatus = "guessed"'}, "'measured' or 'unmeasured'"),
        ({"measured": '[measured]\nstatus = "measured"'}, "date, hardware and command"),
        ({"measured": MEASURED + "speed = 3"}, "speed"),
        ({"measured": MEASURED + "[opt.magic]\nx = 1"}, "opt"),
        ({"match": "family ="}, "line|Invalid"),
    ],
)
def test_profiles_that_do_not_load(write, changes, words):
    with pytest.raises(SettingsError, match=rf"profile bad\.toml.*({words})"):
        profile.load(write("bad", **changes))


def test_no_profile_at_all_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "FOLDER", tmp_path)
    with pytest.raises(SettingsError, match=r"default\.toml"):
        profile.choose("flux", "any", CPU)
