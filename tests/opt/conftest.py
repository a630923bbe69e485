from __future__ import annotations

import copy
import os
from dataclasses import replace
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from fastgen import opt
from fastgen.config import optimizations
from fastgen.config.optimizations import Options, Sets

SIZE = (64, 64)
STEPS = 5


@pytest.fixture(scope="session")
def tiny():
    """tiny(**options) -> the embedded model with these optimizations: what `draw` needs, and the facts."""
    from fastgen.backends.diffusion.families.flux1.family import Flux1
    from fastgen.backends.diffusion.families.flux1.load import load
    from fastgen.backends.diffusion.prompts import PromptEncoder
    from fastgen.resolver import resolve

    torch.set_num_threads(
        1
    )  # tensors this small gain nothing from a second one, and wait for it where others compute too
    plain = load(resolve("t2i", model="tiny", gpus="cpu"), torch.device("cpu"))
    opt.apply_all(plain, optimizations.Optimizations())
    prompts = PromptEncoder(Flux1(plain, 64)).encode(["a red circle on a blue background", "two small stars on black"])

    def make(dtype=torch.float32, **options):
        chosen = choices(**options)
        modules = copy.copy(plain)
        modules.devices = (modules.device,) * 2  # of a replica, for what is split
        modules.transformer = copy.deepcopy(plain.transformer)
        if chosen.quantize.text != "none":
            modules.text_encoder_2 = copy.deepcopy(plain.text_encoder_2)
        modules.dtype = dtype
        modules.transformer.to(dtype)
        facts = opt.apply_all(modules, chosen)
        own = [replace(prompt, embeds=prompt.embeds.to(dtype), pooled=prompt.pooled.to(dtype)) for prompt in prompts]
        return SimpleNamespace(modules=modules, facts=facts, prompts=own)

    return make


def choices(**options) -> optimizations.Optimizations:
    """As a profile would choose them."""
    flags = {name: options.pop(name) for name in ("parallel",) if name in options}  # what no profile can choose
    return optimizations.resolve("", Sets(exact=Options(**options)), "profile 'test'", flags)


def draw(made, count: int = 2, steps: int = STEPS) -> torch.Tensor:
    """Latents (count, tokens, 64), and the samples in `made.samples`."""

    from fastgen.backends.diffusion.families.flux1.family import Flux1
    from fastgen.backends.diffusion.families.flux1.latents import make_noise
    from fastgen.backends.diffusion.family import Sample
    from fastgen.backends.diffusion.step_engine import denoise

    prompts = made.prompts
    if getattr(made, "encode", False):
        from fastgen.backends.diffusion.prompts import PromptEncoder

        prompts = PromptEncoder(Flux1(made.modules, 64)).encode(
            ["a red circle on a blue background", "two small stars on black"]
        )
    samples = [Sample(prompts[i % 2], *SIZE, steps, 3.5, make_noise(i, *SIZE)) for i in range(count)]
    denoise(Flux1(made.modules), samples, count)
    made.samples = samples
    return torch.stack([sample.latents for sample in samples])
