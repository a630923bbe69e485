"""Z-Image computes what diffusers' ZImagePipeline computes, whatever the lengths of prompts and the sizes beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastgen.backends.diffusion.memory import Room
from fastgen.backends.diffusion.step_engine import StepEngine
from tests.backends.diffusion.conftest import open_backend
from tests.backends.diffusion.families import tiny
from tests.backends.diffusion.families.alike import Case, check, sample

LENGTH = 96
CASES = [
    Case("a red circle", 4, 3.0, 1, negative="blurry"),
    Case("a dog on a blue background, painting, and much else that is not there", 3, 0.0, 2),
    Case("a red circle 一杯茶 🍵 " * 20, 6, 1.5, 2**40),
    Case("a tall one", 5, 2.0, 3, size=(64, 128)),
    Case("a wide one", 3, 2.0, 4, size=(160, 64), negative="a wide one"),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A backend, and diffusers' pipeline of the same model as a function of a case."""
    folder = tmp_path_factory.mktemp("z-image")
    pipeline = tiny.z_image(folder / "model")
    backend = open_backend("t2i", folder / "out", model=str(folder / "model"), max_sequence_length=LENGTH)

    def theirs(case: Case) -> torch.Tensor:
        return pipeline(
            negative_prompt=case.negative,
            guidance_scale=case.guidance,
            **case.asked,
            max_sequence_length=LENGTH,
        ).images[0]

    yield backend, theirs
    backend.close()


def test_text_to_image_equals_diffusers(pair):
    check(pair[0], CASES, pair[1])


def test_small_images_of_different_sizes_share_a_forward_pass(pair):
    backend, _ = pair
    keys = {backend.family.key(sample(backend, case)) for case in CASES}
    assert len(keys) == 2, "up to 32 tokens, and up to 64"
    both = [sample(backend, CASES[4]), sample(backend, replace(CASES[4], size=(128, 96)))]
    engine = StepEngine(backend.family, Room(backend.family, lambda pixels: 4))
    engine.submit_all(both)
    while engine.has_work():
        engine.step()
    assert engine.take_counts().passes == CASES[4].steps
    assert [one.latents.shape[0] for one in both] == [40, 48]


def test_a_large_image_joins_small_ones_only_if_so_many_of_its_size_fit(pair):
    backend, _ = pair
    small, large = [sample(backend, replace(CASES[4], size=size)) for size in ((160, 64), (128, 128))]
    engine = StepEngine(backend.family, Room(backend.family, lambda pixels: 2 if pixels > 160 * 64 else 4))
    engine.submit_all([small, large])
    engine.step()
    assert engine.take_counts().pass_samples == 1
