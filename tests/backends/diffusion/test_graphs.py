"""Recorded steps read and write at fixed places; without a GPU they are repeated by calling them again."""

from __future__ import annotations

import copy

import pytest
import torch

from fastgen.backends.diffusion import graphs
from fastgen.backends.diffusion.families.flux1.family import Flux1
from fastgen.backends.diffusion.families.flux1.latents import make_noise
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.memory import Room
from fastgen.backends.diffusion.step_engine import StepEngine, denoise


@pytest.fixture
def recorded(monkeypatch):
    """How often a step was recorded. It is run once while it is recorded, as on a GPU before the recording."""
    found = []

    def record(step, device):
        found.append(1)
        step()
        return step

    monkeypatch.setattr(graphs, "record", record)
    return found


def samples(t2i, count: int, masked: bool) -> list[Sample]:
    prompts = t2i.prompts.encode(["a red circle", "two stars", "a fox"])
    made = [Sample(prompts[i % 3], 64, 64, 3 + i % 3, 2.0 + i, make_noise(i, 64, 64)) for i in range(count)]
    if masked:
        for sample in made[1::2]:
            sample.keep = torch.full((16, 64), 0.5)
            sample.repaint = (torch.arange(16) % 2)[:, None].expand(-1, 64).float()
    return made


@pytest.mark.parametrize("masked", [False, True])
def test_pictures_are_the_same(t2i, recorded, masked):
    """Samples that leave and join, in several runs: a shape is recorded once."""
    want = samples(t2i, 7, masked)
    denoise(t2i.family, want, 3)
    modules = copy.copy(t2i.modules)
    modules.cuda_graphs = True
    family = Flux1(modules, 64)
    engine = StepEngine(family, Room(family, lambda pixels: 3))
    for _ in range(2):
        found = samples(t2i, 7, masked)
        engine.run(found)
        for one, other in zip(found, want, strict=True):
            assert (one.latents == other.latents).all()
    assert len(recorded) == len(engine.graphs._graphs) <= (6 if masked else 3)


def test_few_are_kept(t2i, recorded, monkeypatch):
    monkeypatch.setattr(graphs, "MOST", 2)
    modules = copy.copy(t2i.modules)
    modules.cuda_graphs = True
    family = Flux1(modules, 64)
    engine = StepEngine(family, Room(family, lambda pixels: 3))
    for count in (1, 2, 3, 1):
        engine.run(samples(t2i, count, False))
    assert len(engine.graphs._graphs) == 2
