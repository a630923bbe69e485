"""The host never waits for the device inside a step. Seen on torch's meta device: there tensors have no values, so
whatever wants one of them is noticed, and so is every tensor that comes from main memory."""

from __future__ import annotations

import copy
import traceback
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastgen.backends.diffusion import decode
from fastgen.backends.diffusion.clock import Clock
from fastgen.backends.diffusion.families.flux1.family import Flux1
from fastgen.backends.diffusion.families.flux1.latents import make_noise
from fastgen.backends.diffusion.families.flux1.text import Prompt
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.group import Group, Member
from fastgen.backends.diffusion.memory import Room
from fastgen.backends.diffusion.prompts import PromptEncoder
from fastgen.backends.diffusion.render import Renderer
from fastgen.backends.diffusion.step_engine import StepEngine
from fastgen.config.optimizations import StepCache
from tests.backends.diffusion.test_engine import requests

DEVICE = torch.device("meta")
aten = torch.ops.aten
WAITING = (aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.nonzero, aten.equal)
COPYING = (aten._to_copy, aten.copy_, aten.to)  # in inference mode `to` comes as it is


class Seen(TorchDispatchMode):
    """Counts what a GPU would make the host wait for, and copies to the device."""

    def __init__(self):
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.uploads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_device = any(tensor.device == DEVICE for tensor in given)
        if on_device and func.overloadpacket in WAITING:
            self.wait()
        masks = args[1] if func is aten.index.Tensor else ()
        if any(mask is not None and mask.dtype == torch.bool for mask in masks):
            self.wait()
        if func.overloadpacket in COPYING and given[-1].device != DEVICE:
            self.uploads += made.device == DEVICE
        return made

    def wait(self) -> None:
        at = next(
            f for f in reversed(traceback.extract_stack()) if "/fastgen/" in f.filename and "tests" not in f.filename
        )
        self.waits[f"{at.filename.rpartition('/')[2]}: {at.line}"] += 1


@pytest.fixture
def seen(monkeypatch):
    """`with seen:` counts. Values that are asked for are 1, except for the first sample that asks: 0."""
    found = Seen()
    whole = torch.Tensor.tolist

    def tolist(tensor):
        if tensor.device != DEVICE:
            return whole(tensor)
        found.wait()
        return [0.0, *np.ones(len(tensor) - 1)]

    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    return found


@pytest.fixture(scope="module")
def hollow(t2i):
    """The embedded model without values."""
    modules = copy.copy(t2i.modules)
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        setattr(modules, name, copy.deepcopy(getattr(modules, name)).to(DEVICE))
    modules.device = modules.text_device = modules.end_device = DEVICE
    modules.devices = (DEVICE,)
    return modules


def samples(modules, masked: bool) -> list[Sample]:
    config = modules.transformer.config
    prompt = Prompt(
        torch.empty(64, config.joint_attention_dim, device=DEVICE),
        torch.empty(config.pooled_projection_dim, device=DEVICE),
        3,
    )
    made = [Sample(prompt, 64, 64, steps, 3.5, make_noise(0, 64, 64)) for steps in (6, 6, 9)]
    for sample in made:
        sample.reference, sample.reference_sizes = torch.empty(16, 64, device=DEVICE), ((64, 64),)
    if masked:
        made[1].keep = made[1].repaint = torch.empty(16, 64, device=DEVICE)
    return made


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("cache", "waits"), [(None, 0), (StepCache("first-block", 0.1), 1)])
@torch.inference_mode()
def test_a_step_waits_for_nothing_but_the_decision_of_the_step_cache(hollow, monkeypatch, seen, masked, cache, waits):
    monkeypatch.setattr(hollow, "step_cache", cache)
    family = Flux1(hollow, 64)
    group = Group(family, [Member(family, sample) for sample in samples(hollow, masked)])
    group.step()  # the first one is computed in any case
    for _ in range(4):  # of which the first sample skips some, with a cache
        with seen:
            group.step()
        assert sum(seen.waits.values()) == waits and seen.uploads <= waits, seen.waits
        seen.waits.clear()
        seen.uploads = 0
    assert not group.is_over
    group.step()
    seen.waits.clear()
    assert group.is_over, "the first two have taken their steps"
    with seen:
        rest = group.dissolve()
        assert [member.at for member in rest] == [6]
        before = seen.uploads
        Group(family, rest)
    assert seen.uploads - before == 1, "the schedules of a group are one copy"
    assert sum(seen.waits.values()) == 0, seen.waits


@pytest.mark.parametrize("task", ["t2i", "edit"])
def test_a_batch_is_enqueued_without_waiting(request, hollow, monkeypatch, seen, task, tmp_path):
    """Rows of different steps, with more of them than fit at once. The next batch can be enqueued behind it."""
    from tests.backends.diffusion.conftest import picture

    backend = request.getfixturevalue(task)
    waited = []

    class Download:
        def __init__(self, tensor):
            assert tensor.device == DEVICE
            self._shape, self._dtype = tensor.shape, tensor.dtype

        def wait(self):
            waited.append(1)
            return torch.ones(self._shape, dtype=self._dtype)

    monkeypatch.setattr(decode, "Download", Download)
    family = Flux1(hollow, 64)
    room = Room(family, lambda pixels: 8)
    steps = StepEngine(family, room)
    renderer = Renderer(family, PromptEncoder(family), steps, room)
    rows = [{"id": f"r{i}", "prompt": f"fox {i}", "steps": 2 + i % 2, "size": "64x64"} for i in range(20)]
    if task == "edit":
        picture(1, 64, 64).save(tmp_path / "in.png")
        rows = [row | {"image": str(tmp_path / "in.png")} for row in rows]
    asked = requests(backend, rows)
    inputs, bad = backend._load(asked, Clock(DEVICE))
    assert not bad
    with seen, pytest.raises(StopIteration) as ended:
        stages = renderer.render(asked, inputs, Clock(DEVICE))
        while True:
            next(stages)
            while steps.has_work():
                steps.step()
    assert not waited and not seen.waits, seen.waits
    made, _ = ended.value.value()
    assert waited and len(made) == 20 and all(jobs[0].picture.size == (64, 64) for jobs in made.values())
