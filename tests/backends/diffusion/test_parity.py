"""The engine computes what diffusers' own pipelines compute: max |pixel difference| < 1e-3 (0..1) in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastgen.backends.diffusion.families.flux1.latents import encode_pictures, make_noise
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.step_engine import denoise
from tests.backends.diffusion.conftest import picture

TOLERANCE = 1e-3
PROMPTS = [
    "a red circle",
    "a dog on a blue background, painting",
    "a red circle 一杯茶 🍵",
    "a red circle on blue, " * 60,
]
SETTINGS = [(8, 3.5, 1), (5, 2.0, 2), (8, 1.0, 3), (12, 5.0, 2**40)]
"""(steps, guidance, seed): different in every way that samples of one batch may differ."""


def reference(pipeline, prompt, size, steps, guidance, seed, **more) -> torch.Tensor:
    return pipeline(
        prompt=prompt,
        width=size[0],
        height=size[1],
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(seed),
        max_sequence_length=64,
        output_type="pt",
        **more,
    ).images[0]


@pytest.mark.parametrize("size", [(128, 128), (192, 128), (64, 160)])
@pytest.mark.parametrize("most", [1, 3, 8])
def test_text_to_image_equals_flux_pipeline(t2i, flux_pipeline, size, most):
    encoded = t2i.prompts.encode(PROMPTS)
    samples = [
        Sample(prompt, *size, steps, guidance, make_noise(seed, *size))
        for prompt, (steps, guidance, seed) in zip(encoded, SETTINGS, strict=True)
    ]
    denoise(t2i.family, samples, most)
    for sample, got in zip(samples, t2i.pixels(samples), strict=True):
        at = samples.index(sample)
        want = reference(flux_pipeline, PROMPTS[at], size, *SETTINGS[at])
        assert want.std() > 0.02, "a flat picture proves nothing"
        assert (got - want).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    ("size", "shape"), [((128, 128), (128, 128)), ((192, 128), (128, 192)), ((128, 128), (64, 96))]
)
def test_kontext_equals_flux_kontext_pipeline(edit, flux_pipeline, size, shape):
    """Different pictures in one batch, output and reference of different sizes."""
    from diffusers import FluxKontextPipeline

    kontext = FluxKontextPipeline(**flux_pipeline.components)
    kontext.set_progress_bar_config(disable=True)
    pictures = [picture(seed, *shape) for seed in range(len(PROMPTS))]
    latents = encode_pictures(edit.modules, [np.asarray(p) for p in pictures])
    samples = [
        Sample(prompt, *size, steps, guidance, make_noise(seed, *size), reference=latent, reference_sizes=(shape,))
        for prompt, latent, (steps, guidance, seed) in zip(edit.prompts.encode(PROMPTS), latents, SETTINGS, strict=True)
    ]
    got = edit.pixels(samples)
    for at, image in enumerate(pictures):
        want = reference(
            kontext, PROMPTS[at], size, *SETTINGS[at], image=image, max_area=size[0] * size[1], _auto_resize=False
        )
        assert (got[at] - want).abs().max() < TOLERANCE


def test_true_guidance_equals_flux_pipeline(t2i, flux_pipeline):
    """Samples with a negative prompt and without share every pass."""
    size, negatives = (128, 128), ["a blue house", None, "a dog"]
    prompts = t2i.prompts.encode(PROMPTS[:3])
    samples = [
        Sample(prompt, *size, steps, guidance, make_noise(seed, *size))
        for prompt, (steps, guidance, seed) in zip(prompts, SETTINGS, strict=False)
    ]
    for sample, negative in zip(samples, negatives, strict=True):
        if found := t2i.family.contrast(sample.guidance, 3.0, negative):
            sample.negative, sample.cfg = t2i.prompts.encode([found[0]])[0], found[1]
    denoise(t2i.family, samples, 6)
    for at, got in enumerate(t2i.pixels(samples)):
        more = {"negative_prompt": negatives[at], "true_cfg_scale": 3.0} if negatives[at] else {}
        want = reference(flux_pipeline, PROMPTS[at], size, *SETTINGS[at], **more)
        assert (got - want).abs().max() < TOLERANCE


def test_inputs_matter(t2i):
    """So that parity is not the parity of two constants."""
    size = (128, 128)

    def make(prompt="a red circle", guidance=3.5, seed=1):
        sample = Sample(t2i.prompts.encode([prompt])[0], *size, 8, guidance, make_noise(seed, *size))
        return t2i.pixels([sample])[0]

    base = make()
    assert (base - make()).abs().max() == 0
    for other in (make(prompt="a blue house"), make(seed=2)):
        assert (base - other).abs().mean() > 0.003
    assert (base - make(guidance=1.0)).abs().mean() > 0.002
