"""Chroma computes what diffusers' ChromaPipeline is meant to compute, whatever the lengths of the prompts beside it."""

from __future__ import annotations

import pytest
import torch

from fastgen.errors import ModelError
from fastgen.resolver import resolve
from tests.backends.diffusion.conftest import open_backend
from tests.backends.diffusion.families import tiny
from tests.backends.diffusion.families.alike import Case, check, draw

LENGTH = 64
CASES = [
    Case("a red circle", 4, 3.0, 1, negative="blurry"),
    Case("a dog on a blue background", 3, 1.0, 2),
    Case("a red circle 一杯茶 🍵 " * 20, 6, 3.0, 2**40, true_cfg=2.5),
    Case("a red circle", 5, 4.0, 3, negative="an empty street", true_cfg=1.0),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A backend, and diffusers' pipeline of the same model as a function of a case."""
    folder = tmp_path_factory.mktemp("chroma")
    pipeline = tiny.chroma(folder / "model")
    backend = open_backend("t2i", folder / "out", model=str(folder / "model"), max_sequence_length=LENGTH)
    mask = pipeline._prepare_attention_mask
    # As the model was trained: huggingface/diffusers issue 13619.
    pipeline._prepare_attention_mask = lambda **given: None if given["attention_mask"] is None else mask(**given).bool()

    def theirs(case: Case) -> torch.Tensor:
        found = backend.family.contrast(case.guidance, case.true_cfg, case.negative)
        return pipeline(
            negative_prompt=found[0] if found else None,
            guidance_scale=found[1] if found else 1.0,
            **case.asked,
            max_sequence_length=LENGTH,
        ).images[0]

    yield backend, theirs
    backend.close()


def test_text_to_image_equals_diffusers(pair):
    check(pair[0], CASES, pair[1])


def test_of_the_padding_one_token_counts(pair):
    backend, _ = pair
    short, cut = backend.prompts.encode(["a", "a red circle " * 50])
    assert (len(short.embeds), short.tokens) == (3, 2), "a letter, the end, and one of padding"
    assert len(cut.embeds) == LENGTH < cut.tokens


def test_the_second_pass_needs_a_scale_above_1(pair):
    family = pair[0].family
    assert family.contrast(3.0, None, None) == ("", 3.0)
    assert family.contrast(3.0, 2.0, "blurry") == ("blurry", 2.0)
    assert family.contrast(3.0, 1.0, "blurry") is None


def test_the_modulation_is_placed_where_a_transformer_comes_without_weights(pair, tmp_path):
    """Its table of rows is in no file."""
    backend, _ = pair
    model = backend.settings.model.path
    flags = {"model": model, "max_sequence_length": LENGTH}
    whole = f"{model}/transformer/diffusion_pytorch_model.safetensors"
    other = open_backend("t2i", tmp_path, transformer=whole, **flags)
    for got, want in zip(draw(other, CASES[:2]), draw(backend, CASES[:2]), strict=True):
        assert torch.equal(got, want)
    other.close()


def test_it_edits_nothing(pair, tmp_path):
    with pytest.raises(ModelError, match="makes images from text only"):
        resolve("edit", out=tmp_path, model=pair[0].settings.model.path, gpus="cpu")
