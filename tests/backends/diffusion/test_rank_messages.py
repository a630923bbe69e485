"""What the processes of a replica tell each other, between two ends in this process."""

from __future__ import annotations

import gc
from concurrent.futures import Future
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest
import torch

from fastgen.backends.diffusion.families.flux1.text import Prompt
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.memory import OutOfMemory
from fastgen.backends.diffusion.ranks import lead, messages
from fastgen.config.hardware import Device
from fastgen.resolver import resolve


@pytest.fixture
def sent(monkeypatch):
    """Tensors as the network has them: what is broadcast first is received first."""
    waiting: list[torch.Tensor] = []

    def broadcast(tensor, source):
        assert source == 0
        if waiting and waiting[0].shape == tensor.shape and not tensor.any():
            tensor.copy_(waiting.pop(0))
        else:
            waiting.append(tensor)

    monkeypatch.setattr(messages.dist, "broadcast", broadcast)
    monkeypatch.setattr(messages.torch, "empty", torch.zeros)
    return waiting


@pytest.fixture
def leading(monkeypatch, tmp_path):
    """A leader with one other process, which is the other end of a pipe."""
    ours, theirs = Pipe()

    def other(hello, threads):
        did = SimpleNamespace(get=messages.Did)
        return SimpleNamespace(tell=ours.send, process=SimpleNamespace(pid=1), loaded=Future(), hello=hello, did=did)

    monkeypatch.setattr(lead.tempfile, "tempdir", str(tmp_path))  # no folders are left behind
    monkeypatch.setattr(lead, "Other", other)
    monkeypatch.setattr(lead.Lead, "_listen", lambda *_: None)
    settings = resolve("t2i", out=tmp_path, model="tiny", gpus="cpu:2", gpus_per_replica=2, parallel="context")
    made = lead.Lead(settings, Device("cpu:0+1", "cpu", 2, size=2))
    made._family = SimpleNamespace(modules=SimpleNamespace(device=torch.device("cpu")))
    return made, theirs


def sample(seed: int = 1) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    prompt = Prompt(torch.randn(3, 4, generator=generator), torch.randn(4, generator=generator), 3)
    return Sample(prompt, 32, 16, 4, 3.5, torch.randn(2, 64, generator=generator))


def formed() -> None:
    """Forms nothing here."""


def test_a_sample_arrives_as_it_was_sent(sent):
    before = sample()
    parcel, tensors = messages.packed(before)
    assert len(parcel.body) < 2000, "the tensors are not in the message"
    messages.send(tensors, torch.device("cpu"))
    after = messages.received(parcel, torch.device("cpu"))
    assert (after.width, after.height, after.steps, after.guidance, after.prompt.tokens) == (32, 16, 4, 3.5, 3)
    for name in ("embeds", "pooled"):
        assert torch.equal(getattr(after.prompt, name), getattr(before.prompt, name))
    assert torch.equal(after.noise, before.noise) and not sent


def test_a_sample_is_sent_once_and_forgotten_when_it_is_gone(sent, leading):
    leader, theirs = leading
    members = [SimpleNamespace(sample=sample(seed)) for seed in (1, 2)]
    leader.form(members, formed)
    leader.form(members[1:], formed)
    del members[0]
    gc.collect()
    leader.form(members, formed)
    first, second, third = (theirs.recv() for _ in range(3))
    assert (first.samples, set(first.new), first.gone) == ((0, 1), {0, 1}, ())
    assert (second.samples, set(second.new), second.gone) == ((1,), set(), ())
    assert (third.samples, third.gone) == ((1,), (0,)) and len({first.group, second.group, third.group}) == 3


def test_pictures_are_decoded_by_both_and_stay_in_order(sent, leading):
    leader, theirs = leading
    samples = [sample(seed) for seed in range(3)]
    leader.form([SimpleNamespace(sample=one) for one in samples], formed)
    theirs.recv()
    decoded = leader.decode(samples, lambda own: [SimpleNamespace(wait=lambda one=one: id(one)) for one in own])
    asked = theirs.recv()
    assert asked.samples == (1,)
    leader._take(asked.number, ["theirs"], False, "")
    assert [one.wait() for one in decoded] == [id(samples[0]), "theirs", id(samples[2])]


def test_memory_that_is_full_there_is_an_error_here(sent, leading):
    leader, theirs = leading
    samples = [sample(seed) for seed in range(2)]
    leader.form([SimpleNamespace(sample=one) for one in samples], formed)
    theirs.recv()
    _, other = leader.decode(samples, lambda own: [None] * len(own))
    leader._take(theirs.recv().number, [], False, "no room for 32x16")
    with pytest.raises(OutOfMemory, match="no room for 32x16"):
        other.wait()
