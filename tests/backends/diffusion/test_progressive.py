"""First steps at a smaller size: a picture is its own, alone, in any company, after a restart, when memory was full."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastgen.backends.diffusion import progressive
from fastgen.backends.diffusion.families.flux1.family import Flux1
from fastgen.backends.diffusion.families.flux1.latents import make_noise
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.group import Group
from fastgen.backends.diffusion.step_engine import denoise
from fastgen.config.optimizations import Progressive
from tests.backends.diffusion.conftest import open_backend
from tests.backends.diffusion.test_engine import pixels, run

ROW = {"id": "row", "prompt": "a red circle on a blue background", "seed": 3, "n": 2}
OTHERS = [{"id": f"o{i}", "prompt": "two small stars on black", "seed": i, "steps": 3 + 3 * i} for i in range(4)]


@pytest.fixture(scope="module", params=["none", "first-block:0.4"])
def opened(request, tmp_path_factory):
    """opened() -> a new backend whose images begin at half the sides, without and with a step cache."""
    made = []

    def make():
        made.append(open_backend("t2i", tmp_path_factory.mktemp("t2i"), progressive="0.5", cache=request.param))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def test_a_picture_is_the_same_alone_in_a_batch_after_a_restart_and_a_full_memory(opened, monkeypatch):
    backend = opened()
    (alone,) = run(backend, [ROW])
    among = run(backend, [*OTHERS[:2], {**ROW, "id": "again"}, *OTHERS[2:]])
    fresh = opened()
    (after,) = run(fresh, [ROW])
    real, failed = Group.step, []

    def full_once_at_each_size(group):
        real(group)
        width = group.members[0].sample.width
        if len(group.members) > 1 and width not in failed:
            failed.append(width)
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Group, "step", full_once_at_each_size)
    *_, halved = run(fresh, [*OTHERS, {**ROW, "id": "halved"}])
    assert sorted(failed) == [64, 128]
    for done, of in ((among[2], backend), (after, fresh), (halved, fresh)):
        assert done.progressive == alone.progressive == {"steps": 3, "width": 64, "height": 64}
        assert done.cache == alone.cache
        for one, two in zip(alone.paths, done.paths, strict=True):
            assert np.abs(pixels(backend, one) - pixels(of, two)).max() <= 2
    assert [done.progressive.get("steps", 0) for done in among] == [0, 1, 3, 2, 3], "a quarter of the steps of each row"


def test_the_work_counts_a_small_step_by_its_pixels(opened):
    (done,) = run(opened(), [ROW | {"id": "work", "n": 1}])
    pattern = done.cache.get("pattern", "1" * 12)
    assert len(pattern) == 12
    first, rest = (sum(6 if step == "1" else 1 for step in part) for part in (pattern[:3], pattern[3:]))
    assert done.work["blocks"] == round(first / 4 + rest) and done.work["blocks_without_cache"] == 72


@pytest.fixture
def family(tiny_modules):
    return Flux1(tiny_modules, 64)


@pytest.fixture(scope="module")
def tiny_modules():
    from fastgen.backends.diffusion.families.flux1.load import load
    from fastgen.resolver import resolve

    return load(resolve("t2i", model="tiny", gpus="cpu"), torch.device("cpu"))


def small(family, size=(192, 128), steps=12, choice="0.5:0.25") -> Sample | None:
    family.modules.progressive = Progressive.parse(choice)
    return progressive.beginning(family, Sample(None, *size, steps, 3.5, make_noise(7, *size)))


def test_the_small_image_begins_with_white_noise_and_the_same_share_of_noise(family):
    begun = small(family)
    assert (begun.width, begun.height, begun.noise.shape) == (96, 64, (24, 64))
    assert progressive.last_step(family, begun) == 3 and progressive.last_step(family, begun.whole) == 12
    assert begun.noise.std() == pytest.approx(1, abs=0.05) and begun.noise.mean() == pytest.approx(0, abs=0.05)
    full, own = family.sigmas(12, 96), progressive.levels(family, begun)
    assert (own[0], own[-1]) == (1, 0)
    # Averaging over 2x2 halves the noise and leaves a flat image as it is.
    assert torch.allclose(own[1:-1] / (1 - own[1:-1]), full[1:-1] / (1 - full[1:-1]) / 2)


@pytest.mark.parametrize(("size", "choice"), [((192, 128), "0.5"), ((128, 160), "0.75:0.4")])
def test_a_flat_image_that_grows_is_where_its_own_noise_would_have_it(family, size, choice):
    """On the straight line from its noise to a flat image, the small one meets the full one, noise and all."""
    begun = small(family, size, 12, choice)
    at = progressive.last_step(family, begun)
    level, full = progressive.levels(family, begun)[at], family.sigmas(12, len(begun.whole.noise))[at]
    begun.latents = (1 - level) * 0.8 + level * begun.noise
    whole = progressive.grown(family, begun)
    assert whole.begun.small.steps == at and whole.begun.small.share == pytest.approx(
        begun.width * begun.height / (size[0] * size[1])
    )
    assert torch.allclose(whole.begun.x, (1 - full) * 0.8 + full * whole.noise, atol=1e-5)


@pytest.mark.parametrize(("size", "steps"), [((128, 128), 3), ((16, 16), 12), ((128, 128), 1)])
def test_too_few_steps_or_pixels_have_no_small_image(family, size, steps):
    assert small(family, size, steps) is None


def test_a_row_of_few_steps_is_that_of_the_plain_model(family):
    from fastgen.backends.diffusion.prompts import PromptEncoder

    (prompt,) = PromptEncoder(family).encode(["a red circle"])
    found = []
    for choice in (Progressive.parse("0.5:0.25"), None):
        family.modules.progressive = choice
        samples = [Sample(prompt, 64, 64, 3, 3.5, make_noise(1, 64, 64))]
        denoise(family, samples, 1)
        found.append(samples[0].latents)
    assert torch.equal(*found)
