"""What is advised when memory is full is what is left to do, the least costly first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from msgspec.structs import replace

from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.memory import Room, advice
from fastgen.config.optimizations import Offload, Optimizations, Options, Quantize, Sets
from fastgen.resolver import resolve

ALL = "--offload text, then model, then group"


@pytest.fixture(scope="module")
def plain():
    return resolve("t2i", model="tiny", gpus="cpu")


def changed(settings, dtype="bfloat16", quantize="none", offload="none", fast=""):
    chosen = Optimizations(quantize=Quantize.parse(quantize), offload=Offload(offload))
    profile = replace(settings.placement.profile, opt=Sets(fast=Options(quantize=fast)))
    return replace(
        settings,
        engine=replace(settings.engine, dtype=dtype),
        optimizations=chosen,
        placement=replace(settings.placement, profile=profile),
    )


@pytest.mark.parametrize(
    ("flags", "ways"),
    [
        ({}, ["--quantize 8bit,text:8bit (half of the weights), then 4bit,text:4bit", ALL]),
        ({"dtype": "float32"}, ["--dtype bfloat16", "--quantize 8bit,text:8bit (half of", ALL]),
        ({"fast": "fp8"}, ["--quantize 8bit,text:8bit", ALL, "--quality fast (it has --quantize fp8)"]),
        ({"quantize": "fp8"}, ["--quantize fp8,text:8bit", "--offload text, then model;"]),
        ({"quantize": "text:4bit", "offload": "text"}, ["--quantize 8bit,text:4bit", "--offload model;"]),
        ({"quantize": "8bit,text:8bit"}, ["--quantize 4bit,text:4bit", "--offload text, then model;"]),
        ({"quantize": "4bit,text:4bit", "offload": "model"}, []),
    ],
)
def test_on_a_gpu(plain, flags, ways):
    said = advice(changed(plain, **flags), on_gpu=True, one_sample=False)
    rest = said.removeprefix("try, in this order: ")
    for way in ways:
        at = rest.find(way)
        assert at == 0, said
        rest = rest[rest.find(";", at + len(way) - 1) + 2 :]
    assert rest == "a GPU with more memory; a smaller model", said


def test_for_a_sample_its_size_comes_first_and_on_a_cpu_nothing_is_offloaded(plain):
    said = advice(changed(plain), on_gpu=False, one_sample=True)
    assert said.startswith("try, in this order: a smaller size; --quantize 8bit") and "--offload" not in said
    assert said.endswith("a machine with more memory")


def test_a_sample_that_goes_through_twice_counts_twice():
    once, twice = (Sample(None, 64, 64, 1, 1.0, torch.zeros(16, 64), negative=negative) for negative in (None, "a"))
    family = SimpleNamespace(key=lambda sample: 0)
    assert [Room(family, lambda pixels: 4).most(sample) for sample in (once, twice)] == [4, 2]
    assert Room(family, lambda pixels: 1).most(twice) == 1


def test_the_largest_sample_of_a_pass_decides_how_many_share_it():
    small, large, twice = (
        Sample(None, side, side, 1, 1.0, torch.zeros(16, 64), negative=negative)
        for side, negative in ((64, None), (96, None), (64, "a"))
    )
    family = SimpleNamespace(key=lambda sample: 0, modules=SimpleNamespace(device=torch.device("cpu")))
    room = Room(family, lambda pixels: 8 if pixels == 64 * 64 else 4)
    assert room.fit([small] * 8) and not room.fit([small] * 9)
    assert room.fit([small, large, small, small]) and not room.fit([small, large, small, small, small])
    assert room.fit([small] * 2 + [twice] * 3) and not room.fit([small] * 3 + [twice] * 3)
    assert room.shrink(large, 4, "denoising") == 2
    assert room.fit([small] * 8) and not room.fit([small, small, large])
    assert Room(family, lambda pixels: 1).fit([twice]), "one alone"
