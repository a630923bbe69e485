"""What the shipped models can do, through diffusers' and transformers' own classes. Samples are small, so bounds leave
room; the full figures are `python -m bench.quality`'s."""

from __future__ import annotations

import json
import os
import random

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from PIL import Image

from fastgen.config.model_cards import TINY, read_card
from fastgen.embedded.captioner import TINY_VLM, Captioner
from fastgen.embedded.scenes import CANVASES, OPERATIONS, Scene, Shape, caption, draw, random_scene, read
from fastgen.embedded.train.check import check_edits, check_prompts
from fastgen.embedded.train.dialogues import REQUESTS, SYSTEMS, question
from fastgen.embedded.train.flux_folder import DEFAULTS


@pytest.fixture(scope="module")
def captioner():
    return Captioner()


def goal(met: bool, found: object) -> None:
    """What the models are to reach; where the shipped weights are short of it, the report says so with the figure."""
    if not met:
        pytest.xfail(f"the shipped weights are short of this goal: {found}")


def size_of(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_they_are_small_and_whole():
    assert size_of(TINY) <= 16e6 and size_of(TINY_VLM) <= 8e6
    assert read_card("tiny", TINY).defaults == DEFAULTS
    assert (TINY / "README.md").exists() and (TINY_VLM / "README.md").exists()
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (*TINY.rglob("*"), *TINY_VLM.rglob("*")))


@pytest.mark.slow
def test_it_draws_one_shape():
    found, _ = check_prompts(TINY, 50, shapes=1, seed=11)
    assert found["background"] >= 0.98 and found["colors"] >= 0.96 and found["places"] >= 0.96, found
    assert found["kinds"] >= 0.92, found


@pytest.mark.slow
def test_it_draws_two_shapes():
    found, _ = check_prompts(TINY, 50, shapes=2, seed=12)
    assert found["all"] >= 0.86, found


@pytest.mark.slow
def test_it_draws_at_diffusers_own_text_length_and_steps():
    found, _ = check_prompts(TINY, 20, shapes=1, seed=13, length=512, steps=28)
    assert found["all"] >= 0.85, found


@pytest.mark.slow
def test_it_edits_and_leaves_the_rest_alone():
    found, _ = check_edits(TINY, 60, seed=14)
    assert found["all"] >= 0.9 and found["outside"] < 4, found


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.slow
def test_every_kind_of_edit_works(operation):
    found, _ = check_edits(TINY, 10, seed=15, operation=operation)
    assert found["all"] >= 0.7, found


def test_guidance_matters(flux_pictures):
    """It is distilled: one pass, and a picture that depends on it."""
    low, high = flux_pictures(guidance=1.0), flux_pictures(guidance=6.0)
    off = np.abs(low.astype(float) - high.astype(float)).mean((1, 2, 3))
    assert (off > 0.4).all(), off  # of pictures that were right before; over 50 prompts the mean is 1.6


def test_capitals_change_nothing(flux_pictures):
    prompt = "a red circle on a blue background"
    plain, capital = flux_pictures(prompts=[prompt]), flux_pictures(prompts=[prompt.capitalize()])
    assert np.abs(plain.astype(int) - capital.astype(int)).max() <= 2


@pytest.fixture(scope="module")
def flux_pictures():
    """flux_pictures(prompts=..., guidance=...) -> uint8 (N, 128, 128, 3)."""
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(TINY, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def make(prompts=("a red circle on a blue background", "a big green square"), guidance=3.5):
        made = pipeline(
            list(prompts),
            width=128,
            height=128,
            num_inference_steps=8,
            guidance_scale=guidance,
            max_sequence_length=64,
            generator=torch.Generator().manual_seed(0),
        )
        return np.stack([np.asarray(picture) for picture in made.images])

    return make


@pytest.mark.slow
def test_it_captions(captioner):
    right = 0
    for index in range(30):
        scene = random_scene(random.Random(f"test-{index}"), CANVASES[index % len(CANVASES)])
        picture = Image.fromarray(draw(scene))
        system = SYSTEMS[0] if index % 3 == 0 else ""
        right += captioner.ask(picture, REQUESTS[index % len(REQUESTS)], system) == caption(scene)
    assert right >= 27, f"{right} of 30"


@pytest.mark.slow
def test_it_answers_questions_and_writes_json(captioner):
    right = 0
    for index in range(30):
        rng = random.Random(f"ask-{index}")
        scene = random_scene(rng, CANVASES[index % len(CANVASES)])
        asked, answer = question(scene, rng)
        right += captioner.ask(Image.fromarray(draw(scene)), asked) == answer
    assert right >= 8
    scene = Scene("blue", (Shape("circle", "red", "large", "center"),))
    found = captioner.ask(Image.fromarray(draw(scene)), "Describe the image as JSON.")
    assert "red" in found or "blue" in found
    goal(right >= 24, f"{right} of 30")
    found = json.loads(found)
    goal("red" in json.dumps(found) or found.get("background") == "blue", found)


@pytest.mark.slow
def test_it_captions_what_the_embedded_flux_draws(captioner):
    _, pictures = check_prompts(TINY, 20, shapes=1, seed=16)
    said = [captioner.ask(picture) == caption(read(np.asarray(picture))) for picture in pictures]
    assert sum(said) >= 17, f"{sum(said)} of 20"
