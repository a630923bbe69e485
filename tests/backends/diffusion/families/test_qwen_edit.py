"""Qwen-Image-Edit computes what diffusers' pipelines compute, which take one row at a time: here rows with and without
true guidance, of any lengths of prompts, share batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen.errors import ModelError
from fastgen.input.geometry import lay_out
from fastgen.resolver import resolve
from fastgen.types import Batch, Bucket, Request
from tests.backends.diffusion.conftest import open_backend, picture
from tests.backends.diffusion.families import tiny
from tests.backends.diffusion.families.alike import Case, check
from tests.backends.diffusion.families.rows import images_of, rows

PIXELS = 64 * 64
CONDITION = 96 * 96
ONE = [
    Case("make it blue", 3, 4.0, 1, references=((64, 64),)),
    Case("a dog on a blue background, and much else that is not there", 2, 1.0, 2, references=((64, 64),)),
    Case("make it 一杯茶 🍵 " * 8, 4, 1.0, 2**40, negative="blurry", true_cfg=2.5, references=((64, 64),)),
]
SEVERAL = [replace(case, references=((64, 64), (96, 32), (32, 128))) for case in ONE[:2]]


def opened(kind: str, folder: Path):
    """A backend, and diffusers' pipeline of the same model as a function of a case."""
    plus = kind != "edit"
    pipeline = tiny.qwen_edit(folder / "model", PIXELS, plus, zero_cond_t=kind == "2511")
    backend = open_backend("edit", folder / "out", model=str(folder / "model"))
    if plus:
        backend.family.condition_pixels = CONDITION
    encoder, forward = pipeline.text_encoder, pipeline.text_encoder.forward
    # As the model was trained: huggingface/diffusers issue 14194.
    encoder.forward = lambda input_ids, **more: forward(
        input_ids=input_ids, mm_token_type_ids=(input_ids == encoder.config.image_token_id).int(), **more
    )

    def theirs(case: Case) -> torch.Tensor:
        found = backend.family.contrast(case.guidance, case.true_cfg, case.negative)
        return pipeline(
            image=case.pictures if plus else case.pictures[0],
            negative_prompt=found[0] if found else None,
            true_cfg_scale=found[1] if found else 1.0,
            **case.asked,
        ).images[0]

    return backend, theirs


@pytest.fixture(scope="module", params=["edit", "2509", "2511"])
def pair(request, tmp_path_factory):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", PIXELS)
        patch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", CONDITION)
        whole = pipeline_qwenimage_edit.calculate_dimensions
        patch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda area, ratio: whole(PIXELS, ratio))
        backend, theirs = opened(request.param, tmp_path_factory.mktemp(request.param))
        yield backend, theirs
        backend.close()


def test_edits_equal_diffusers_alone_and_together(pair):
    check(pair[0], ONE, pair[1])


def test_edits_with_three_images_equal_diffusers(pair):
    backend, theirs = pair
    if backend.settings.model.defaults.max_references > 1:
        check(backend, SEVERAL, theirs)


def test_rows_have_images_masks_turns_and_negative_prompts(pair, tmp_path):
    """One batch of rows gives the images of one row each, whose text encoder saw the row's own images."""
    backend, _ = pair
    for name, number in (("a", 1), ("b", 2)):
        picture(number, 64, 64).save(tmp_path / f"{name}.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    turns = [{"role": "user", "content": text} for text in ("make it blue", "make it red")]
    one = {"id": "one", "prompt": "make it blue", "image": "a.png", "steps": 2, "seed": 1}
    asked = [
        one,
        one | {"id": "other", "image": "b.png", "steps": 3},
        one | {"id": "masked", "mask": "mask.png"},
        one | {"id": "negative", "negative_prompt": "blurry", "true_cfg_scale": 3.0},
        one | {"id": "twice", "prompt": None, "conversations": turns, "n": 2},
    ]
    requests = rows(backend, tmp_path, asked)
    assert all(isinstance(request, Request) and request.render == (64, 64) for request in requests), requests
    alone = {}
    for request in requests:
        alone |= images_of(backend, backend.run(Batch(Bucket.of(request), (request,))))
    together = images_of(backend, backend.run(Batch(Bucket.of(requests[0]), tuple(requests[3::-1]))))
    assert set(together) == {"one", "other", "masked", "negative"}
    for name, image in together.items():
        assert abs(image - alone[name]).max() <= 2, name
    before = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    assert (alone["masked"][:, :32] == before[:, :32]).all() and (alone["masked"][:, 32:] != before[:, 32:]).any()
    assert all(abs(alone[name] - alone["one"]).max() > 1 for name in set(alone) - {"one"})


def test_input_images_have_the_size_that_the_model_was_trained_with(pair):
    card = pair[0].settings.model
    assert lay_out([(30, 60), (300, 100)], None, False, card).references == ((32, 96), (96, 32))
    assert lay_out([(30, 60)], (48, 48), False, card).references == ((32, 96),)
    masked = lay_out([(30, 60), (300, 100)], None, True, card)
    assert masked.references[0] == masked.render == (32, 96) and masked.saved == (30, 60)


def test_it_makes_nothing_from_text_alone(pair, tmp_path):
    model = pair[0].settings.model.path
    with pytest.raises(ModelError, match="edits images and makes none from text alone"):
        resolve("t2i", out=tmp_path, model=model, gpus="cpu")
