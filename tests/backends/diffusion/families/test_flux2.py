"""FLUX.2 computes what diffusers' pipelines compute: klein, distilled and not, and dev."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen.backends.diffusion.families.flux2.kept import KeptForward
from fastgen.backends.diffusion.step_engine import denoise
from fastgen.resolver import fitting
from fastgen.types import Batch, Bucket, Failed, Request
from tests.backends.diffusion.conftest import open_backend, picture
from tests.backends.diffusion.families import tiny
from tests.backends.diffusion.families.alike import Case, check, draw, sample
from tests.backends.diffusion.families.rows import images_of, rows

LENGTH = {"base": 64, "distilled": 64, "kept": 64, "dev": 256}
"""Tokens of a prompt. Of dev, what it is told first is counted."""
MAKERS = {
    "base": lambda folder: tiny.flux2(folder, distilled=False),
    "distilled": lambda folder: tiny.flux2(folder, distilled=True),
    "kept": tiny.flux2_kept,
    "dev": tiny.flux2_dev,
}
CASES = [
    Case("a red circle", 4, 3.0, 1),
    Case("a dog [IMG]on a blue background, painting", 3, 1.0, 2),
    Case("a red circle 一杯茶 🍵 " * 20, 6, 5.0, 2**40),
]
EDITS = [
    Case("make it blue", 4, 3.0, 1, references=((64, 64), (96, 64), (64, 128))),
    Case("make the circle of image 1 blue", 3, 2.0, 2, references=((64, 64), (96, 64), (64, 128))),
]


@pytest.fixture(scope="module", params=MAKERS)
def pair(request, tmp_path_factory):
    """A backend, and diffusers' pipeline of the same model as a function of a case."""
    folder = tmp_path_factory.mktemp(request.param)
    guided = {} if request.param == "kept" else {"guidance_scale": 0.0}
    pipeline, length = MAKERS[request.param](folder / "model"), LENGTH[request.param]
    backend = open_backend("edit", folder / "out", model=str(folder / "model"), max_sequence_length=length)

    def theirs(case: Case) -> torch.Tensor:
        return pipeline(
            image=case.pictures or None,
            **dict.fromkeys(guided, case.guidance),
            **case.asked,
            max_sequence_length=length,
        ).images[0]

    yield backend, theirs
    backend.close()


def test_text_to_image_equals_diffusers(pair):
    check(pair[0], CASES, pair[1])


def test_edits_with_one_reference_and_with_three_equal_diffusers(pair):
    backend, theirs = pair
    check(backend, EDITS, theirs)
    check(backend, [Case("make it blue", 4, 3.0, 1, references=((64, 64),))], theirs)


def test_guidance_counts_in_the_base_model_and_in_dev(pair):
    backend, _ = pair
    defaults = backend.settings.model.defaults
    weak, strong = draw(backend, [Case("a red circle", 3, 2.0, 1), Case("a red circle", 3, 6.0, 1)])
    is_klein = backend.settings.model.family != "flux2_dev"
    counts = defaults.true_cfg or not is_klein
    assert ((weak - strong).abs().max() > (0.01 if is_klein else 0.003)) == counts
    assert (defaults.steps, defaults.max_references) == ((50, 10) if counts else (4, 10))


def test_kept_references_are_read_once_for_each_sample(pair, monkeypatch):
    """Whoever joins or leaves; and nothing of them stays with a sample that is done."""
    backend, _ = pair
    if backend.settings.model.family != "flux2_kept":
        return
    read, own = [], KeptForward._read
    monkeypatch.setattr(KeptForward, "_read", lambda self, one: read.append(one) or own(self, one))
    size = {"references": ((64, 64),)}
    cases = [Case("make it blue", steps, 1.0, steps, **size) for steps in (2, 3, 5, 4)]
    samples = [sample(backend, case) for case in cases]
    denoise(backend.family, samples, 2)
    assert len(read) == 4 and {id(one) for one in read} == {id(one) for one in samples}
    assert all(one.memory is None and one.latents is not None for one in samples)


def test_the_plan_has_room_for_kept_references(pair):
    settings = pair[0].settings
    work = fitting._work(
        "edit", settings.model, settings.engine, settings.image, settings.run, settings.placement.profile
    )
    assert work.kept_tokens == (work.reference_tokens if settings.model.family == "flux2_kept" else 0)
    assert work.reference_tokens > 0


def test_of_devs_text_encoder_only_what_is_read_is_kept(pair):
    backend, _ = pair
    encoder = backend.modules.text_encoder
    assert len(encoder.layers) == backend.modules.parts.text_layers
    assert not any("vision" in name or "lm_head" in name for name, _ in encoder.named_parameters())


def test_the_text_encoder_can_be_quantized(pair, tmp_path):
    backend, _ = pair
    model = backend.settings.model.path
    small = open_backend("edit", tmp_path, model=model, quantize="none,text:8bit", max_sequence_length=64)
    kinds = {type(layer).__name__ for layer in small.modules.text_encoder.modules()}
    case = Case("a red circle", 2, 3.0, 1)
    (got,), (want,) = draw(small, [case]), draw(backend, [case])
    small.close()
    assert "Linear8bit" in kinds and torch.isfinite(got).all() and got.shape == want.shape


def test_a_negative_prompt_counts_in_the_base_model(pair):
    backend, _ = pair
    if not backend.settings.model.defaults.true_cfg:
        assert backend.family.contrast(4.0, None, "blurry") is None
        return
    plain, negative = draw(
        backend, [Case("a red circle", 3, 4.0, 1), Case("a red circle", 3, 4.0, 1, negative="blurry")]
    )
    assert (plain - negative).abs().max() > 0.003


def test_rows_have_several_references_masks_and_negative_prompts(pair, tmp_path):
    backend, _ = pair
    for name, shape in {"a": (64, 64), "b": (96, 64), "c": (64, 128)}.items():
        picture(len(name), *shape).save(tmp_path / f"{name}.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    base = backend.settings.model.defaults.true_cfg
    one = {"id": "one", "prompt": "make it blue", "image": "a.png", "size": "64x64", "steps": 2, "seed": 1}
    asked = [
        one,
        one | {"id": "three", "image": ["a.png", "b.png", "c.png"]},
        one | {"id": "masked", "mask": "mask.png"},
        one | {"id": "negative", "negative_prompt": "blurry"},
        one | {"id": "many", "image": ["a.png"] * 11},
    ]
    requests = rows(backend, tmp_path, asked)
    assert (
        isinstance(requests[-1], Failed) and "takes at most 10 in one edit, so leave some out" in requests[-1].message
    )
    assert requests[1].references == ((64, 64), (96, 64), (64, 128)) and not requests[1].places
    if not base:
        assert (
            "row 4, field negative_prompt" in requests[3].message and "remove `negative_prompt`" in requests[3].message
        )
    good = [request for request in requests if isinstance(request, Request)]
    done = [backend.run(Batch(Bucket.of(request), (request,)))[0] for request in good]
    images = images_of(backend, done)
    assert set(images) == {"one", "three", "masked"} | ({"negative"} if base else set())
    before = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    assert (images["masked"][:, :32] == before[:, :32]).all() and (images["masked"][:, 32:] != before[:, 32:]).any()
    assert all(abs(images[name] - images["one"]).max() > 1 for name in set(images) - {"one"})
