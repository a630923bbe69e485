"""The step cache: a sample's decisions and picture are its own, alone, in any company and after a restart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen.backends.diffusion.group import Group
from fastgen.config.optimizations import StepCache
from fastgen.opt.stepcache import CacheState
from tests.backends.diffusion.conftest import open_backend, picture
from tests.backends.diffusion.test_engine import pixels, run

OTHERS = [
    "two small stars on black",
    "a green square",
    "",
    "a large yellow triangle on a white background",
    "fox " * 30,
    "a blue circle and a red square",
    "night",
    "three small circles on gray",
]


@pytest.fixture(scope="module", params=["first-block:0.2", "taylorseer:0.2"])
def cached(request, tmp_path_factory):
    """cached(task) -> a new backend with the cache on."""
    opened = []

    def make(task):
        opened.append(open_backend(task, tmp_path_factory.mktemp(task), cache=request.param))
        return opened[-1]

    yield make
    for backend in opened:
        backend.close()


def same(one, two, a, b) -> None:
    assert one.cache == two.cache and "0" in one.cache["pattern"]
    for path, other in zip(one.paths, two.paths, strict=True):
        assert np.abs(pixels(a, path) - pixels(b, other)).max() <= 2


def test_a_picture_is_the_same_alone_in_a_batch_and_after_a_restart(cached):
    row = {"id": "row", "prompt": "a red circle on a blue background", "seed": 3, "n": 2}
    others = [
        {"id": f"o{i}", "prompt": text or "x", "seed": i, "steps": 6 + 2 * (i % 4), "guidance": 1.0 + i / 2}
        for i, text in enumerate(OTHERS)
    ]
    backend = cached("t2i")
    (alone,) = run(backend, [row])
    among = run(backend, [*others[:4], {**row, "id": "again"}, *others[4:]])
    same(alone, among[4], backend, backend)
    assert {len(r.cache["pattern"]) for r in among} == {6, 8, 10, 12, 25}, "steps of its own, a word a picture"
    fresh = cached("t2i")
    (after,) = run(fresh, [row])
    same(alone, after, backend, fresh)
    assert alone.cache["steps"] == 24 and alone.cache["computed"] == alone.cache["pattern"].count("1")
    assert alone.work["blocks"] == 6 * alone.cache["computed"] + 24 - alone.cache["computed"]
    assert alone.work["blocks_without_cache"] == 6 * 24


def test_edits_masks_and_turns(cached, tmp_path):
    before = picture(3, 128, 128)
    before.save(tmp_path / "in.png")
    picture(4, 128, 128).save(tmp_path / "other.png")
    mask = Image.new("L", before.size)
    mask.paste(255, (32, 32, 96, 96))
    mask.save(tmp_path / "mask.png")
    turns = [{"role": "user", "content": "make the background green"}, {"role": "user", "content": "add a red star"}]
    rows = [
        {"id": "masked", "image": str(tmp_path / "in.png"), "mask": str(tmp_path / "mask.png"), "conversations": turns},
        {"id": "whole", "image": str(tmp_path / "other.png"), "conversations": turns, "steps": 8},
        {"id": "more", "image": str(tmp_path / "in.png"), "conversations": turns, "n": 2},
    ]
    backend = cached("edit")
    together = run(backend, rows)
    for row, among in zip(rows, together, strict=True):
        (alone,) = run(backend, [{**row, "seed": among.params.seed, "id": row["id"] + "-alone"}])
        same(alone, among, backend, backend)
    assert [len(result.cache["pattern"].split()) for result in together] == [2, 2, 4]
    assert (np.abs(pixels(backend, together[0].paths[0]) - np.asarray(before))[np.asarray(mask) == 0] == 0).all()


def test_halving_a_batch_for_memory_changes_nothing(cached, monkeypatch):
    backend = cached("t2i")
    rows = [{"id": f"m{i}", "prompt": text or "x", "seed": i, "steps": 6 + i} for i, text in enumerate(OTHERS[:5])]
    want = run(backend, rows)
    real, failed = Group.step, []

    def fits_two(group):
        real(group)
        if len(group.members) > 2 and group.taken == 3:
            failed.append(group)
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Group, "step", fits_two)
    monkeypatch.setattr(backend.room, "_fits", {})
    for one, two in zip(want, run(backend, rows), strict=True):
        assert one.cache == two.cache
    assert failed, "in the middle of its steps"


def test_high_and_fast_evaluate_fewer_blocks(tmp_path):
    rows = [{"id": f"r{i}", "prompt": text, "seed": i} for i, text in enumerate(filter(None, OTHERS))]
    for quality, least in (("high", 1.6), ("fast", 2.0)):
        backend = open_backend("t2i", tmp_path / quality, quality=quality)
        results = run(backend, rows)
        work = results[0].work
        assert work["blocks_without_cache"] >= least * work["blocks"] and not any(r.work for r in results[1:])
        backend.close()


def test_without_a_cache_nothing_is_said(t2i):
    (done,) = run(t2i, [{"id": "plain", "prompt": "a fox"}])
    assert not done.cache and set(done.work) == {"passes", "pass_samples", "joins"}


@pytest.mark.parametrize(("kind", "pattern"), [("first-block", "100010001001"), ("taylorseer", "110001000101")])
def test_first_and_last_steps_are_computed_and_no_more_than_three_left_out(kind, pattern):
    memory = CacheState(StepCache(kind, 2.0), 12)
    for step in range(12):
        if memory.must_compute:
            memory.computed(torch.ones(4, 8), torch.full((4, 8), 2.0), 1 - step / 12)
        else:
            assert memory.distance(torch.ones(4, 8), 1 - step / 12).item() == 0
            memory.skipped(1 - step / 12)
    assert memory.pattern == pattern


def test_the_line_through_the_last_two():
    """In bfloat16 too the distance is a float32."""
    memory = CacheState(StepCache("taylorseer", 0.1), 9)
    for sigma in (1.0, 0.8):
        assert memory.must_compute
        value = torch.full((4, 8), 1 - sigma + 1, dtype=torch.bfloat16)
        memory.computed(value, -value, sigma)
    at = memory.distance(torch.full((4, 8), 1.4, dtype=torch.bfloat16), 0.6)
    assert at.dtype == torch.float32 and at < 0.01
    assert memory.distance(torch.full((4, 8), 2.8), 0.6) == pytest.approx(1.0, abs=0.02)
    assert memory.skipped(0.6).float().mean() == pytest.approx(-1.4, abs=0.02)
