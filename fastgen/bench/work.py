"""The rows of a round, and what their images should show. The rows depend only on the number of the round, so every arm
and every repetition of the command does the same work.

For the embedded models they are scenes of their world, so that images can be judged; for other models they are varied
sentences.
"""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from fastgen.config.model_cards import TINY, TINY_VLM
from fastgen.config.settings import Settings
from fastgen.embedded.scenes import CANVASES, Scene, Wish, as_wish, describe, draw, parse, random_edit, random_scene

SEED = 20
"""Training never uses seeds of this form."""
MEGAPIXEL = 7
"""This many times larger, the canvases of the world have about one megapixel."""
SUBJECTS = (
    "a fox",
    "an old fisherman",
    "a glass teapot",
    "two cyclists",
    "a lighthouse",
    "a robot gardener",
    "a bowl of cherries",
    "a street musician",
    "a steam engine",
    "a paper boat",
    "a sleeping cat",
    "a spiral staircase",
)
PLACES = (
    "in a snowy pine forest",
    "by the sea at dusk",
    "on a rainy city street",
    "in a sunlit kitchen",
    "on a mountain ridge",
    "under a night sky full of stars",
    "in a crowded market",
    "beside a quiet river",
)
STYLES = (
    "a photograph with shallow depth of field",
    "an oil painting with thick brushwork",
    "a watercolour sketch",
    "a clean vector illustration",
    "a cinematic wide shot",
    "a detailed pencil drawing",
)
EDITS = (
    "make it night",
    "turn the background blue",
    "add a small red boat",
    "make it a pencil drawing",
    "let it snow",
    "replace the shape in the middle with a tree",
    "make all colours warmer",
)


class Work:
    """Args: settings: task, size and model; folder: where the input images of rows are stored."""

    def __init__(self, settings: Settings, folder: Path):
        self.settings = settings
        self.folder = folder
        self.is_judged = settings.model.path in (str(TINY), str(TINY_VLM))
        """Whether it is known what an image should show, or a caption should say."""
        wanted = settings.image.size or (settings.model.defaults.width, settings.model.defaults.height)
        self.size = wanted if settings.task != "caption" else CANVASES[0]
        ratio = self.size[0] / self.size[1]
        self.canvas = min(CANVASES, key=lambda canvas: abs(canvas[0] / canvas[1] - ratio))
        """The scenes are drawn on this canvas and then scaled."""

    def rows(self, turn: int, count: int) -> tuple[list[dict], dict[str, object]]:
        """Rows for a turn, and by id the expected result: a `Wish`, or for a caption the scene; {} if unknown."""
        rows, wishes = [], {}
        for number in range(count):
            dice = random.Random(f"bench-{SEED}-{self.settings.task}-{turn}-{number}")
            row, wish = getattr(self, f"_{self.settings.task}")(dice, turn, number)
            row |= {"id": f"{turn}-{number}"}
            rows.append(row)
            if self.is_judged:
                wishes[row["id"]] = wish
        return rows, wishes

    def _t2i(self, dice: random.Random, turn: int, number: int) -> tuple[dict, Wish | None]:
        text = (
            describe(random_scene(dice, self.canvas, 1 + number % 2), dice).text
            if self.is_judged
            else _sentence(dice, number)
        )
        row = {"prompt": text, "size": "x".join(map(str, self.size)), "seed": dice.randrange(2**31)}
        return row, parse(text) if self.is_judged else None

    def _edit(self, dice: random.Random, turn: int, number: int) -> tuple[dict, Wish | None]:
        while True:
            scene = random_scene(dice, self.canvas)
            try:
                _, text, after = random_edit(scene, dice)
                break
            except ValueError:  # no room for it, or nothing to apply it to
                continue
        path = self._picture(scene, f"{turn}-{number}.png")
        asked = text.text if self.is_judged else dice.choice(EDITS)
        size = "x".join(map(str, self.size))
        return {"image": str(path), "prompt": asked, "size": size, "seed": dice.randrange(2**31)}, as_wish(after)

    def _caption(self, dice: random.Random, turn: int, number: int) -> tuple[dict, object]:
        canvas = CANVASES[number % len(CANVASES)]
        scene = random_scene(dice, canvas)
        scale = 1 if self.is_judged else MEGAPIXEL  # a large VLM sees little in a small image
        size = (scale * canvas[0], scale * canvas[1])
        return {"image": str(self._picture(scene, f"{turn}-{number}.png", size))}, scene

    def _picture(self, scene: Scene, name: str, size: tuple[int, int] | None = None) -> Path:
        path = self.folder / name
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            picture, size = Image.fromarray(draw(scene)), size or self.size
            (picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)).save(path)
        return path


def _sentence(dice: random.Random, number: int) -> str:
    return f"{dice.choice(SUBJECTS)} {dice.choice(PLACES)}, {dice.choice(STYLES)}, number {number}"
