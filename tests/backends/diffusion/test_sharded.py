"""A model whose blocks are on several devices of a replica makes the same images to the bit, and enqueues its work so
that all of them are busy. On a CPU the devices are such by name only; tests/rehearsal has cards that refuse tensors of
another one."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest
from PIL import Image

from fastgen.backends.diffusion import cached_blocks
from fastgen.backends.diffusion.backend import DiffusionBackend
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.group import Group
from fastgen.backends.diffusion.in_turn import InTurn
from fastgen.backends.diffusion.memory import Room
from fastgen.backends.diffusion.step_engine import StepEngine
from fastgen.backends.registry import streams
from fastgen.bench.pipeline import Model, Piece, order, simulate
from fastgen.input.readers.rows import Row
from fastgen.input.requests import Intake
from fastgen.resolver import resolve
from fastgen.types import Batch, Bucket, Done
from tests.backends.diffusion.conftest import picture

WORDS = ("two", "three", "four", "five", "six")
EDIT = {"images": ["0.png"], "prompt": "make it red"}
PROMPTS = ("a red circle on a blue background", "two small stars on a black background")
STARS = [
    {"prompt": f"{word} stars on a blue background", "steps": steps}
    for word, steps in zip(WORDS, (3, 6, 4, 2, 5), strict=True)
]
CASES = {
    "t2i": ("t2i", {}, [{"prompt": prompt} for prompt in PROMPTS]),
    "mixed steps": ("t2i", {}, STARS),
    "cache": ("t2i", {"cache": "first-block:0.4"}, [row | {"steps": 5 + row["steps"]} for row in STARS[:3]]),
    "edit": ("edit", {}, [EDIT, {"images": ["1.png"], "prompt": "add a star"}]),
    "mask": ("edit", {}, [EDIT | {"mask": "mask.png"}]),
}
STAGES = (2, 3, 4)
PATIENCE_S = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images to edit, and a mask."""
    root = tmp_path_factory.mktemp("sharded")
    for seed in range(2):
        picture(seed, 64, 64).save(root / f"{seed}.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(mask).save(root / "mask.png")
    return root


@pytest.fixture(scope="module")
def opened(folder):
    """opened(task, stages, flags) -> the engine with so many stages, opened once."""
    found: dict[tuple, DiffusionBackend] = {}

    def get(task: str, stages: int, flags: dict) -> DiffusionBackend:
        key = (task, stages, *flags)
        if key not in found:
            out = folder / "-".join(map(str, key))
            gpus = {"gpus": f"cpu:{stages}", "gpus_per_replica": stages} if stages > 1 else {"gpus": "cpu"}
            given = {"model": "tiny", "batch_size": 1, "image_root": folder, **gpus, **flags}
            settings = resolve(task, out=out, **given)
            for name in ("images", ".partial", "logs"):
                os.makedirs(out / name)
            [device] = settings.placement.devices
            found[key] = DiffusionBackend(settings, device)
            found[key].facts = found[key].open()
        return found[key]

    yield get
    for backend in found.values():
        backend.close()


def images(backend: DiffusionBackend, rows: list[dict]) -> list[np.ndarray]:
    intake = Intake(backend.settings)
    lines = [Row(number, json.dumps(row).encode()) for number, row in enumerate(rows, 1)]
    requests = tuple(intake.read(line, intake.identify(line)) for line in lines)
    results = backend.run(Batch(Bucket.of(requests[0]), requests))
    assert all(isinstance(one, Done) for one in results), results
    return [np.asarray(Image.open(f"{backend.settings.run.out}/{path}")) for one in results for path in one.paths]


@pytest.mark.parametrize("case", CASES)
def test_the_images_are_those_of_one_device(opened, case):
    task, flags, rows = CASES[case]
    whole = images(opened(task, 1, flags), rows)
    assert max(image.std() for image in whole) > 1
    for stages in STAGES:
        backend = opened(task, stages, flags)
        assert len(backend.modules.stages) == stages == len({stage.start for stage in backend.modules.stages})
        assert len(backend.steps._streams) == streams(backend.device) * (stages + 1)
        for one, other in zip(whole, images(backend, rows), strict=True):
            assert (one == other).all()


def test_run_json_says_where_the_blocks_are(opened):
    facts = opened("t2i", 4, {}).facts["opt"]["shard"]
    assert facts["stages"][0][0] == 0 and facts["stages"][-1][1] == 6
    assert [stop - start for start, stop in facts["stages"]] in ([2, 2, 1, 1], [1, 1, 2, 2], [1, 2, 2, 1], [2, 1, 1, 2])


@pytest.mark.parametrize("stages", [2, 4])
@pytest.mark.parametrize("more", [0, 1])
def test_no_stage_waits_once_the_pipeline_is_full(opened, monkeypatch, stages, more):
    """What the engine enqueues, in its order, on GPUs whose stages take equal time."""
    backend, groups, steps = opened("t2i", stages, {}), stages + more, 28
    pieces, now = [], []
    monkeypatch.setattr(Group, "step", _noted(now, Group.step))
    first = {stage.start: number for number, stage in enumerate(backend.modules.stages)}
    transformer = backend.modules.transformer
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    hooks = [
        blocks[start].register_forward_pre_hook(lambda *_, stage=stage: pieces.append(Piece(*now[-1], stage)))
        for start, stage in first.items()
    ]
    family = backend.family
    [prompt] = backend.prompts.encode(["a star"])
    try:
        samples = [Sample(prompt, 64, 64, steps, 1.0, family.noise(n, 64, 64)) for n in range(groups)]
        steps_of_all = StepEngine(family, Room(family, lambda pixels: 1), groups)
        in_turn = InTurn(steps_of_all, groups)
        futures = steps_of_all.submit_all(samples)
        while in_turn.has_work(0):
            in_turn.step(0)
        assert all(future.done() for future in futures)
    finally:
        for hook in hooks:
            hook.remove()
    assert pieces == list(order(stages, groups, steps))
    use = simulate(pieces, Model((1.0,) * stages))
    assert use.waits == 0 and min(use.filled) == 1.0
    assert min(use.busy) >= 0.9


def test_with_a_step_cache_only_its_own_group_waits_for_a_decision(opened, monkeypatch):
    """The first decision of each group is there only when all groups have come to one."""
    task, flags, rows = CASES["cache"]
    backend = opened(task, 2, flags)
    count = len(backend.steps._streams)
    everyone, came = threading.Barrier(count), threading.local()
    real = cached_blocks.distances

    def late(sums):
        if not hasattr(came, "before"):
            came.before = True
            everyone.wait(PATIENCE_S)
        return real(sums)

    rows = (rows * count)[:count]
    whole = images(opened(task, 1, flags), rows)
    monkeypatch.setattr(cached_blocks, "distances", late)
    found = images(backend, rows)
    assert not everyone.broken and everyone.n_waiting == 0
    assert all((one == other).all() for one, other in zip(whole, found, strict=True))


def _noted(now: list[tuple[int, int]], step):
    numbers: dict[int, int] = {}

    def noted(group: Group) -> None:
        now.append((numbers.setdefault(id(group), len(numbers)), group.taken))
        step(group)

    return noted
