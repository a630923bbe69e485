"""Samples join and leave at step boundaries, whichever batch they came with."""

from __future__ import annotations

import random
import threading

import pytest
import torch

from fastgen.backends.diffusion.clock import Clock, Span
from fastgen.backends.diffusion.families.flux1.latents import make_noise
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.group import Group
from fastgen.backends.diffusion.memory import OutOfMemory, Room
from fastgen.backends.diffusion.own_streams import OwnStreams
from fastgen.backends.diffusion.step_engine import StepEngine, denoise
from fastgen.types import Batch, Bucket, Done
from tests.backends.diffusion.conftest import picture
from tests.backends.diffusion.test_engine import pixels, requests

MOST = 8


@pytest.fixture
def make(t2i):
    prompts = t2i.prompts.encode(["a red circle", "two stars", "a fox"])

    def sample(seed: int, steps: int, size=(64, 64)) -> Sample:
        return Sample(prompts[seed % 3], *size, steps, 2.0 + seed % 3, make_noise(seed, *size))

    return sample


@pytest.fixture
def engine(t2i):
    """engine(most, streams=1)"""
    return lambda most=MOST, streams=1: StepEngine(t2i.family, Room(t2i.family, lambda pixels: most), streams)


@pytest.fixture
def sizes(monkeypatch):
    """How many samples each forward pass had."""
    found: list[int] = []
    real = Group.step

    def step(group):
        found.append(len(group.members))
        real(group)

    monkeypatch.setattr(Group, "step", step)
    return found


def test_groups_stay_full_while_samples_wait(make, engine, sizes):
    """64 samples with 4 to 50 steps in batches of 8, sorted as the scheduler sorts them."""
    steps = sorted((4 + round(46 * i / 63) for i in range(64)), reverse=True)
    samples = [make(i, count) for i, count in enumerate(steps)]
    one, waiting = engine(), []
    futures = one.submit_all(samples[: 3 * MOST])
    later = [samples[i : i + MOST] for i in range(3 * MOST, 64, MOST)]
    while one.has_work():
        waiting.append(bool(one._waiting))
        one.step()
        done = sum(future.done() for future in futures)
        while later and len(futures) - done <= 2 * MOST:  # a worker holds three batches
            futures += one.submit_all(later.pop(0))
    assert all(future.done() and future.exception() is None for future in futures) and len(futures) == 64
    counts = one.take_counts()
    assert (counts.passes, counts.pass_samples) == (len(sizes), sum(steps))
    while_waiting = [size for size, more in zip(sizes, waiting, strict=True) if more]
    assert sum(while_waiting) / len(while_waiting) >= 7.5
    assert sum(sizes) / len(sizes) >= 7
    assert counts.joins == 64 - MOST, "all but the first group joined others"
    apart = [make(i, steps[i]) for i in range(0, 64, 7)]
    for sample in apart:
        denoise(one.family, [sample], 1)
    off = [(sample.latents - samples[7 * i].latents).abs().max() for i, sample in enumerate(apart)]
    assert max(off) < 1e-3, "a picture is that of its row alone"


def test_samples_are_taken_in_order_and_only_with_their_kind(make, engine, sizes):
    one = engine()
    small, wide, late = [make(i, 2) for i in range(3)], [make(3, 2, (96, 64))], [make(4, 2)]
    futures = one.submit_all(small + wide + late)
    for _ in range(2):
        one.step()
    assert [future.done() for future in futures] == [True] * 3 + [False] * 2, "the late one waits behind the wide one"
    while one.has_work():
        one.step()
    assert sizes == [3, 3, 1, 1, 1, 1] and one.take_counts().joins == 0


def test_streams_share_what_waits(make, engine, sizes):
    both = engine(streams=2)
    futures = both.submit_all([make(i, 2) for i in range(6)])
    both.step(0)
    both.step(1)
    assert sizes == [3, 3]
    futures += both.submit_all([make(i, 2) for i in range(2)])
    both.step(1)
    assert sizes == [3, 3, 4] and both.has_work(0) and both.has_work(1)
    while both.has_work(0) or both.has_work(1):
        both.step(0)
        both.step(1)
    assert all(future.result() is None for future in futures)


def test_a_shortage_of_memory_harms_nobody(make, engine, monkeypatch):
    one, real, failed = engine(), Group.step, []

    def fits_three(group):
        if len(group.members) > 3:
            failed.append(len(group.members))
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(group)

    samples = [make(i, 3) for i in range(8)]
    want = [make(i, 3) for i in range(8)]
    denoise(one.family, want, 8)
    monkeypatch.setattr(Group, "step", fits_three)
    one.run(samples)
    assert failed == [8, 4], "then two at a time"
    assert max((a.latents - b.latents).abs().max() for a, b in zip(samples, want, strict=True)) < 1e-3


def test_who_does_not_fit_alone_fails_alone(make, engine, monkeypatch):
    one, real = engine(), Group.step
    big = make(3, 2)

    def fits_most(group):
        if any(member.sample is big for member in group.members):
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(group)

    monkeypatch.setattr(Group, "step", fits_most)
    futures = one.submit_all([make(0, 2), big, make(1, 2)])
    while one.has_work():
        one.step()
    assert isinstance(futures[1].exception(), OutOfMemory) and "one sample of 64x64" in str(futures[1].exception())
    assert futures[0].exception() is None and futures[2].exception() is None


def test_a_failed_pass_harms_only_the_sample_that_is_the_cause(make, engine, sizes, monkeypatch):
    """Samples of several rows share it, so the others are made as if nothing had happened."""
    one, real = engine(), Group.step
    samples, want = [[make(i, 3 + i) for i in range(4)] for _ in range(2)]
    denoise(one.family, want, 1)
    sizes.clear()

    def step(group):
        if any(member.sample is samples[1] and member.at + group.taken == 2 for member in group.members):
            raise ValueError("no")
        real(group)

    monkeypatch.setattr(Group, "step", step)
    futures = one.submit_all(samples)
    while one.has_work():
        one.step()
    assert [str(future.exception()) for future in futures] == ["None", "no", "None", "None"]
    assert sizes == [4] * 2 + [1] * (3 + 2 + 5 + 6), "after it each of them is alone"
    assert all((samples[i].latents - want[i].latents).abs().max() < 1e-3 for i in (0, 2, 3))
    late = one.submit_all([make(0, 2), make(1, 2)])
    one.step()
    one.step()
    assert sizes[-2:] == [2, 2] and all(future.done() for future in late), "who comes later is not"


def test_a_failed_pass_of_one_caller_is_an_error(make, engine, monkeypatch):
    """So that the warm-up finds out that groups do not work."""
    one, real = engine(), Group.step

    def step(group):
        if len(group.members) > 1:
            raise ValueError("no groups")
        real(group)

    monkeypatch.setattr(Group, "step", step)
    with pytest.raises(ValueError, match="no groups"):
        one.run([make(0, 2), make(1, 2)])


def no_device(*_):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def no_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    "broken",
    [
        [(Group, "step", no_device)],
        [(Group, "dissolve", no_device)],
        [(Span, "wait", no_device)],
        [(OwnStreams, "end", no_device)],
        [(Group, "step", no_memory), (Room, "empty_cache", no_device)],
    ],
    ids=lambda broken: broken[-1][1],
)
def test_a_device_that_fails_leaves_nobody_waiting(make, engine, monkeypatch, broken):
    """Wherever the host learns of it: nobody is tried again, and the thread that steps goes on."""
    one = engine()
    for owner, name, call in broken:
        monkeypatch.setattr(owner, name, call)
    futures = one.submit_all([make(i, 5) for i in range(2)])
    for _ in range(5):
        one.step()
    assert ["CUDA error" in str(future.exception(timeout=0)) for future in futures] == [True, True]
    assert not one.has_work()


def test_with_and_without_a_second_pass_they_fill_the_device_together(make, engine, sizes):
    """A sample with a negative prompt takes two places, whoever came first."""
    one = engine(4)
    samples = [make(i, 1) for i in range(6)]
    for at in (1, 2):
        samples[at].negative, samples[at].cfg = samples[0].prompt, 2.0
    futures = one.submit_all(samples)
    while one.has_work():
        one.step()
    assert sizes == [2, 3, 1] and all(future.result() is None for future in futures)


def test_batches_share_the_time_of_their_passes(make, engine):
    one = engine()
    clocks = [Clock(torch.device("cpu")) for _ in range(2)]
    one.submit_all([make(i, 2) for i in range(3)], clocks[0])
    one.submit_all([make(3, 2)], clocks[1])
    while one.has_work():
        one.step()
    mine, theirs = (clock.read()["denoise"] for clock in clocks)
    assert mine == pytest.approx(3 * theirs) and theirs > 0


@pytest.mark.parametrize("task", ["t2i", "edit"])
def test_batches_of_one_engine_meet(request, task, sizes, tmp_path):
    """Two calls of `run` at the same time, with rows of very different steps: pictures as those of runs apart."""
    backend = request.getfixturevalue(task)
    picture(1, 64, 64).save(tmp_path / "in.png")
    rows = [
        {"id": f"{task}{i}", "prompt": f"fox {i}", "seed": i, "steps": 2 + 6 * (i % 2), "size": "64x64"}
        for i in range(8)
    ]
    if task == "edit":
        rows = [row | {"image": str(tmp_path / "in.png")} for row in rows]
    asked = requests(backend, rows)
    batches = [Batch(Bucket.of(asked[0]), tuple(asked[i : i + 4])) for i in (0, 4)]
    found: dict[int, list] = {}
    threads = [threading.Thread(target=lambda at=at: found.update({at: backend.run(batches[at])})) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = found[0] + found[1]
    assert all(isinstance(result, Done) for result in together)
    images = [pixels(backend, result.paths[0]) for result in together]
    random.Random(1).shuffle(asked)
    for one in asked:
        (alone,) = backend.run(Batch(Bucket.of(one), (one,)))
        assert abs(pixels(backend, alone.paths[0]) - images[int(one.id.removeprefix(task))]).max() <= 2
