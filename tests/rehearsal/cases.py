"""What is rehearsed: models x cards x qualities x tasks, each combination that differs once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from fastgen import resolve
from fastgen.bench import synthetic
from fastgen.config.settings import Settings
from tests.rehearsal.cards import CARDS, Card, installed
from tests.rehearsal.engine import Opened, Ran, opened, requests, run

MODELS = {"flux-dev": ("t2i", "t2i mixed"), "flux-kontext": ("edit", "mask", "edit mixed")}
"""Model -> what is asked of it."""
QUALITIES = ("exact", "high", "fast")
SIZE, MIXED_SIZE = "1024x1024", "512x512"
STEPS = 3
MIXED = ({"steps": 3}, {"steps": 3, "guidance": 2.0}, {"steps": 2}, {"steps": 4, "guidance": 5.0}, {"steps": 2})
"""Rows of one size that share a batch: some leave early, one joins."""

ANSWERS = {"computed": 9.0, "reused": 0.0}
"""The distance that the step cache reads at each step, and what follows from it."""


@dataclass(frozen=True)
class Setup:
    """One way to run a model, and the cards on which it is chosen."""

    model: str
    quality: str
    settings: Settings
    cards: list[Card] = field(compare=False)

    @property
    def words(self) -> dict[str, str | bool]:
        return {k: v for k, v in self.settings.optimizations.words().items() if k != "quality"}

    @property
    def batch(self) -> int:
        """Rows of the default size that go together."""
        width, height = map(int, SIZE.split("x"))
        return self.settings.run.batch_size or self.settings.placement.profile.batch_for(width * height)

    @property
    def smallest(self) -> Card:
        return min(self.cards, key=lambda card: card.gib)


@dataclass(frozen=True)
class Outcome:
    """One batch of one setup."""

    setup: Setup
    task: str
    cache: str
    """"": there is none; "computed" or "reused": what it decides wherever it may choose."""
    opened: Opened
    ran: Ran
    seconds: float


def setups(folder: Path, cards: Iterable[Card] = CARDS, models=MODELS, qualities=QUALITIES) -> list[Setup]:
    """What fastgen chooses on each card; cards on which it chooses the same share one."""
    found: dict[tuple, Setup] = {}
    for model in models:
        for quality in qualities:
            for card in cards:
                settings = chosen(folder, model, quality, card)
                key = (model, json.dumps(settings.optimizations.words()), settings.placement.profile.batch)
                found.setdefault(key, Setup(model, quality, settings, [])).cards.append(card)
    return [
        replace_settings(setup, chosen(folder, setup.model, setup.quality, setup.smallest)) for setup in found.values()
    ]


def replace_settings(setup: Setup, settings: Settings) -> Setup:
    return Setup(setup.model, setup.quality, settings, setup.cards)


def chosen(folder: Path, model: str, quality: str, card: Card, **flags) -> Settings:
    """The settings of a run on this card with no other flags."""
    if not (folder / model).exists():
        synthetic.make(model, folder / model)
    rows = rows_file(folder, synthetic.TASKS[model])
    with installed(card, folder / f"bin-{card.sold_as_gb}"):
        return resolve(
            synthetic.TASKS[model],
            str(rows),
            model=str(folder / model),
            quality=quality,
            size=SIZE,
            gpus="0",
            out=str(folder / "out"),
            **flags,
        )


def rows_file(folder: Path, task: str, count: int = 1) -> Path:
    """The input of a task; the images that it names lie beside it."""
    path = folder / f"{task} {count}.jsonl"
    if not path.exists():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows(task, count)), "utf-8")
        Image.new("RGB", (1024, 1024), (200, 90, 10)).save(folder / "in.png")
        mask = Image.new("L", (1024, 1024))
        mask.paste(255, (128, 128, 640, 640))
        mask.save(folder / "mask.png")
    return path


def rows(task: str, count: int) -> list[dict]:
    """So many rows that are alike, or those of a mixed batch."""
    row = {"id": task, "prompt": "a fox in the snow", "size": SIZE, "steps": STEPS}
    if not task.startswith("t2i"):
        row["images"] = ["in.png"]
    if task == "mask":
        row["mask"] = "mask.png"
    if task.endswith("mixed"):
        rows = [row | {"size": MIXED_SIZE, "id": f"{task} {n}"} | own for n, own in enumerate(MIXED)]
        if not task.startswith("t2i"):
            rows[1]["mask"] = "mask.png"
        return rows
    return [row | {"id": f"{task} {n}", "prompt": f"{row['prompt']}, {n}"} for n in range(count)]


def rehearse(
    setup: Setup,
    folder: Path,
    tasks: Iterable[str] = (),
    caches: Iterable[str] = tuple(ANSWERS),
    is_quick: bool = False,
) -> Iterator[Outcome]:
    """Open the engine once, on the smallest card of the setup, and run each task, with as many rows as a run has in a
    batch; with a step cache once for each way in which it may decide.

    Args:
        is_quick: blocks that are alike are computed once.
    """
    import time

    has_cache = setup.settings.optimizations.stepcache.kind != "none"
    with installed(setup.smallest, folder / "bin"), opened(setup.settings, setup.smallest, is_quick=is_quick) as engine:
        for task in tasks or MODELS[setup.model]:
            given = requests(setup.settings, rows_file(folder, task, setup.batch))
            for cache in caches if has_cache else ("",):
                engine.rehearsal.meter.answer = ANSWERS.get(cache, 0.0)
                started = time.monotonic()
                ran = run(engine, given)
                yield Outcome(setup, task, cache, engine, ran, time.monotonic() - started)
