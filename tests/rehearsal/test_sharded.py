"""Full-size models over several cards: what is on them, what crosses between them, and that nobody waits.

python -m tests.rehearsal.test_sharded     prints the figures
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fastgen.bench.pipeline import border_bytes
from fastgen.config.settings import Settings
from fastgen.resolver import resolve
from fastgen.types import Done
from tests.rehearsal import cases, engine, folders
from tests.rehearsal.cards import BY_GB, Card, installed

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]
MATRIX = [(model, count, gb) for model in ("flux-dev", "flux-kontext") for count, gb in ((2, 24), (3, 16), (2, 40))]
GIB = 2**30


@dataclass(frozen=True)
class Found:
    settings: Settings
    stages: list[list[int]]
    text_on: int
    peaks: list[int]
    between_bytes: int
    """Per step."""
    syncs: int
    """Per step."""
    results: list


def over_cards(folder: Path, model: str, count: int, card: Card, **flags) -> Found:
    """One image, on one replica of so many cards."""
    task = cases.MODELS[model][0]
    folders.make(model, folder / model)
    given = {"model": str(folder / model), "size": cases.SIZE, "out": str(folder / "out"), **flags}
    rows = cases.rows_file(folder, task)
    with installed(card, folder / f"bin-{card.sold_as_gb}-{count}", count):
        settings = resolve(task, str(rows), gpus_per_replica=count, **given)
        with engine.opened(settings, card, count=count) as opened:
            opened.rehearsal.meter.answer = cases.ANSWERS["computed"]
            ran = engine.run(opened, engine.requests(settings, rows))
            facts = opened.facts["opt"]["shard"]
            peaks = list(opened.rehearsal.meter.peaks)
    syncs = sum(ran.step.syncs.values())
    return Found(
        settings, facts["stages"], facts["text_encoders_on"], peaks, ran.step.between_bytes, syncs, ran.results
    )


def expected_bytes(found: Found) -> int:
    """What crosses at a step: the tokens and the modulation's input at each border, the latter once more for the last
    layers, and the velocity back."""
    reference = 1024 if found.settings.task == "edit" else 0
    stages = len(found.stages)
    modulation, velocity = 3072 * 2, 4096 * 64 * 2
    return (stages - 1) * border_bytes(1, 1024, reference) + modulation + velocity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.mark.parametrize(("model", "count", "gb"), MATRIX)
def test_it_fits_crosses_each_border_once_and_nobody_waits(folder, model, count, gb):
    found = over_cards(folder, model, count, BY_GB[gb])
    assert all(isinstance(one, Done) for one in found.results), found.results
    assert len(found.stages) == count and max(found.peaks) < BY_GB[gb].memory_bytes
    assert found.between_bytes == expected_bytes(found)
    assert found.syncs == 0


def test_with_a_step_cache_the_host_waits_once_in_each_step(folder):
    found = over_cards(folder, "flux-dev", 2, BY_GB[24], cache="first-block:0.1")
    assert all(isinstance(one, Done) for one in found.results), found.results
    assert found.syncs == 1


def test_tensors_of_two_cards_do_not_mix():
    from tests.rehearsal.fake_cuda import rehearsed

    with rehearsed(BY_GB[24], count=2) as rehearsal:
        before = list(rehearsal.meter.lives)
        one, two = (torch.ones(1 << 20, device=f"cuda:{number}") for number in range(2))
        assert [now - then for now, then in zip(rehearsal.meter.lives, before, strict=True)] == [4 << 20, 4 << 20]
        with pytest.raises(RuntimeError, match="device"):
            one + two
        rehearsal.meter.work.between_bytes = 0
        assert (one + two.to(one.device)).device == one.device
        assert rehearsal.meter.work.between_bytes == 4 << 20


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        for model, count, gb in MATRIX:
            found = over_cards(Path(name), model, count, BY_GB[gb])
            peaks = " + ".join(f"{peak / GIB:.1f}" for peak in found.peaks)
            print(
                f"{model} over {count} x {gb} GB: blocks {found.stages}, text encoders on {found.text_on}, peaks "
                f"{peaks} of {BY_GB[gb].gib} GiB, {found.between_bytes / 1e6:.2f} MB between the cards per step "
                f"(expected {expected_bytes(found) / 1e6:.2f}), {found.syncs} waits per step, "
                f"{[type(one).__name__ for one in found.results]}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
