"""What is rehearsed: models x cards x qualities x tasks, each combination that differs once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from fastgen import resolve
from fastgen.config.settings import Settings
from fastgen.errors import SettingsError
from tests.rehearsal import folders
from tests.rehearsal.cards import CARDS, Card, installed
from tests.rehearsal.engine import Opened, Ran, opened, requests, run

MODELS = {
    "flux-dev": ("t2i", "t2i mixed"),
    "flux-kontext": ("edit", "mask", "edit mixed"),
    "klein": ("t2i", "t2i mixed"),
    "klein edit": ("edit", "mask", "edit mixed"),
    "klein-kv edit": ("edit", "mask", "edit mixed"),
    "flux2-dev": ("t2i", "t2i mixed"),
    "flux2-dev edit": ("edit", "edit mixed"),
    "chroma": ("t2i", "t2i mixed"),
    "z-image": ("t2i", "t2i mixed"),
    "qwen-image": ("t2i", "t2i mixed"),
    "qwen-edit": ("edit", "mask", "edit mixed"),
}
"""Model -> what is asked of it. The first is the task of its run."""
QUALITIES = ("exact", "high", "fast")
SIZE, MIXED_SIZE = "1024x1024", "512x512"
STEPS = 3
PROMPT = "a fox in the snow, " * 90
"""As long as a prompt may be."""
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


def setups(
    folder: Path,
    cards: Iterable[Card] = CARDS,
    models: Iterable[str] = tuple(MODELS),
    qualities: Iterable[str] = QUALITIES,
    refused: list[tuple[str, str, Card]] | None = None,
) -> list[Setup]:
    """What fastgen chooses on each card; cards on which it chooses the same share one.

    Args:
        refused: gets (model, quality, card) where it says that nothing fits. None: nothing of the kind may happen.
    """
    found: dict[tuple, Setup] = {}
    for model in models:
        for quality in qualities:
            for card in cards:
                try:
                    settings = chosen(folder, model, quality, card)
                except SettingsError as error:
                    if refused is None or "does not fit" not in str(error):
                        raise
                    refused.append((model, quality, card))
                    continue
                setup = Setup(model, quality, settings, [])
                key = (model, quality, json.dumps(setup.words), settings.placement.profile.batch)
                found.setdefault(key, setup).cards.append(card)
    return [
        replace(setup, settings=chosen(folder, setup.model, setup.quality.partition(",")[0], setup.smallest))
        for setup in _once(found)
    ]


def _once(found: dict[tuple, Setup]) -> Iterable[Setup]:
    """Qualities for which the same is chosen on the same cards share a setup: "exact, high"."""
    made: dict[tuple, Setup] = {}
    for (model, quality, *chosen_there), setup in found.items():
        key = (model, *chosen_there, tuple(setup.cards))
        known = made.get(key)
        made[key] = replace(known, quality=f"{known.quality}, {quality}") if known else setup
    return made.values()


def chosen(folder: Path, model: str, quality: str, card: Card, **flags) -> Settings:
    """The settings of a run on this card with no other flags."""
    name, task = model.partition(" ")[0], MODELS[model][0]
    made = folders.make(name, folder / name)
    rows = rows_file(folder, task)
    with installed(card, folder / f"bin-{card.sold_as_gb}"):
        return resolve(
            task,
            str(rows),
            model=str(made),
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
    row = {"id": task, "prompt": PROMPT, "size": SIZE, "steps": STEPS}
    if not task.startswith("t2i"):
        row["images"] = ["in.png"]
    if task == "mask":
        row["mask"] = "mask.png"
    if task.endswith("mixed"):
        rows = [row | {"size": MIXED_SIZE, "id": f"{task} {n}"} | own for n, own in enumerate(MIXED)]
        if not task.startswith("t2i"):
            rows[1]["mask"] = "mask.png"
        return rows
    return [row | {"id": f"{task} {n}", "prompt": f"{n}, {PROMPT}"} for n in range(count)]


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
