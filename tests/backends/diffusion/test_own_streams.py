"""The order in which streams wait for each other. There is no GPU: streams are such by name only."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from fastgen.backends.diffusion.own_streams import OwnStreams

GPUS = (torch.device("cuda", 0), torch.device("cuda", 1))


@pytest.fixture
def waits(monkeypatch):
    """(who waits, for whom), in order."""
    found: list[tuple[str, str]] = []
    current = {}

    class Stream:
        def __init__(self, device, name="own"):
            self.device = device
            self.name = f"{name} {device.index}"

        def wait_stream(self, other):
            found.append((self.name, other.name))

    @contextmanager
    def inside(stream):
        before, current[stream.device] = current[stream.device], stream
        found.append(("current", stream.name))
        yield
        current[stream.device] = before

    current.update({gpu: Stream(gpu, "default") for gpu in GPUS})
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "current_stream", current.__getitem__)
    return found


def test_what_a_group_needs_is_there_and_so_is_what_it_made(waits):
    own, made = OwnStreams((*GPUS, GPUS[0])), torch.ones(2)
    own.begin()
    assert sorted(waits) == [("own 0", "default 0"), ("own 1", "default 1")]
    waits.clear()
    with own.inside():
        assert waits[-1] == ("current", "own 0"), "the first GPU stays the current one"
    waits.clear()
    own.end()
    assert sorted(waits) == [("default 0", "own 0"), ("default 1", "own 1")]
    assert own.brought_out(made) is not made and own.brought_out(made).equal(made)


@pytest.mark.parametrize("devices", [(), (torch.device("cpu"),) * 2])
def test_without_gpus_or_without_streams_of_its_own_nothing_is_copied(waits, devices):
    own, made = OwnStreams(devices), torch.ones(2)
    own.begin()
    with own.inside():
        pass
    own.end()
    assert own.brought_out(made) is made and not waits
