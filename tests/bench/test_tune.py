"""What --tune writes: the smallest batch that is as fast as any, and for each quality the fastest arm that loses little
enough. The measurements are made up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fastgen.bench import tune
from fastgen.config import profile
from fastgen.config.optimizations import Options
from fastgen.resolver import resolve

RATIOS = {
    "compile": 1.4,
    "fuse_qkv": 1.05,
    "cache taylorseer:0.2": 1.8,
    "cache first-block:0.4": 2.5,
    "quantize 4bit": 3,
}
RIGHT = {"cache first-block:0.4": 195, "quantize 4bit": 150}
"""Of 200 pictures; all others 199."""


class Measured:
    """A `Measurement` by these tables."""

    def __init__(self, contestants, work, folder, *, rounds, rows, say):
        self.figures = [self._figures(arm) for arm in contestants]

    def run(self):
        pass

    def _figures(self, arm):
        names = arm.name.split(" + ")
        ratio = 1.0
        for name in names:
            ratio *= RATIOS.get(name, 1.0)
        if arm.name.startswith("batch"):
            size = arm.settings.run.batch_size
            assert arm.name == f"batch {size}"
            ratio = min(size, 4) * (1.01 if size > 4 else 1)  # beyond 4 it is noise
        judge = SimpleNamespace(right=min(RIGHT.get(name, 199) for name in names), judged=200)
        return SimpleNamespace(arm=arm, failed=False, ratios=[ratio], rates=[10 * ratio], judge=judge)


@pytest.fixture
def found(tmp_path, monkeypatch):
    """found(judged) -> what `search` says, and the profile that it wrote."""

    def run(judged):
        monkeypatch.setattr(tune, "Measurement", Measured)
        monkeypatch.setattr(tune, "Work", lambda settings, folder: SimpleNamespace(is_judged=judged))
        settings = resolve("t2i", out=tmp_path, model="tiny", gpus="cpu")
        facts = {"weights": "embedded", "dtype": "float32", "steps": 12, "hardware": "a CPU", "command": "bench --tune"}
        said = tune.search(settings, tmp_path, 1, 4, facts, lambda text: None)
        return said, profile.load(tmp_path / "profile.toml")

    return run


def test_batches_and_qualities(found):
    said, (match, written) = found(True)
    assert said["batch"] == {"128x128": 4, "192x192": 4, "256x256": 4}
    assert said["ratio_to_one_at_a_time"]["128x128"] == {"1": 1.0, "2": 2, "4": 4, "8": 4.04, "16": 4.04}
    assert said["chosen"] == {
        "exact": "fuse_qkv + compile",
        "high": "fuse_qkv + compile + cache taylorseer:0.2",
        "fast": "fuse_qkv + compile + cache first-block:0.4",
    }
    assert written.opt.exact == Options(fuse_qkv=True, compile=True)
    assert written.opt.fast == Options(fuse_qkv=True, compile=True, cache="first-block:0.4")
    assert (match.model, match.device, written.measured.status) == ("tiny", "cpu", "measured")
    assert written.batch_for(192 * 192) == 4
    one = 0.128 * 0.128 * 12  # 14.7, 26.46 and 36.75 images of 128x128 with 12 steps per second
    assert written.rate == profile.Rate(*(round(images * one, 3) for images in (14.7, 26.46, 36.75)))


def test_qualities_that_cannot_be_judged_are_taken_over(found):
    said, (_, written) = found(False)
    assert list(said["chosen"]) == ["exact"] and written.opt.exact == Options(fuse_qkv=True, compile=True)
    used = resolve("t2i", model="tiny", gpus="cpu").placement.profile
    assert (written.opt.high, written.opt.fast) == (used.opt.high, used.opt.fast)
    assert written.rate.exact > 0 and (written.rate.high, written.rate.fast) == (0, 0)
    assert "high and fast as in cpu-tiny, not measured" in written.measured.note
