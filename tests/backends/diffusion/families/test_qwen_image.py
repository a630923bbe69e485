"""Qwen-Image computes what diffusers' QwenImagePipeline computes, whatever the lengths of the prompts beside it."""

from __future__ import annotations

import pytest
import torch

from tests.backends.diffusion.conftest import open_backend
from tests.backends.diffusion.families import tiny
from tests.backends.diffusion.families.alike import Case, check

CASES = [
    Case("a red circle", 4, 4.0, 1, negative="blurry"),
    Case("a dog on a blue background, painting, and much else that is not there", 3, 1.0, 2),
    Case("a red circle 一杯茶 🍵 " * 20, 6, 1.0, 2**40, true_cfg=2.5),
    Case("a red circle", 5, 4.0, 3, negative="an empty street", true_cfg=1.0),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A backend, and diffusers' pipeline of the same model as a function of a case."""
    folder = tmp_path_factory.mktemp("qwen-image")
    pipeline = tiny.qwen_image(folder / "model")
    backend = open_backend("t2i", folder / "out", model=str(folder / "model"))

    def theirs(case: Case) -> torch.Tensor:
        found = backend.family.contrast(case.guidance, case.true_cfg, case.negative)
        return pipeline(
            negative_prompt=found[0] if found else None,
            true_cfg_scale=found[1] if found else 1.0,
            **case.asked,
        ).images[0]

    yield backend, theirs
    backend.close()


def test_text_to_image_equals_diffusers(pair):
    check(pair[0], CASES, pair[1])


def test_the_second_pass_needs_a_scale_above_1_and_takes_a_blank_prompt_if_there_is_none(pair):
    family = pair[0].family
    assert family.contrast(4.0, None, None) == (" ", 4.0)
    assert family.contrast(4.0, 2.0, "blurry") == ("blurry", 2.0)
    assert family.contrast(4.0, 1.0, "blurry") is None
