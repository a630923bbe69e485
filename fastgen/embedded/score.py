"""Prompt following: the share of a run's images that show what their prompts say, judged by the scene reader.

    python -m fastgen.embedded.score RUN [--json]

It judges rows whose prompts are in the grammar of the embedded models' scenes (`scenes/language.py`,
`scenes/edits.py`); others are counted and left out. An edit is right if its image shows the scene of the input with the
edit applied.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fastgen.embedded.scenes import Scene, Verdict, Wish, apply, as_wish, match, parse, parse_edit, read
from fastgen.errors import FastgenError, InputError
from fastgen.input import masks
from fastgen.input.readers.rows import read as read_rows
from fastgen.input.row_schema import read_images, read_prompts

PARTS = ("count", "background", "kinds", "colors", "places", "sizes")


@dataclass
class Score:
    pictures: int = 0
    """Number of images that were judged."""
    right: int = 0
    """Number of images that show everything that was said."""
    unjudged: int = 0
    """Images of rows that the grammar does not cover, of failed rows, and of edits with a mask or several images."""
    parts: Counter = field(default_factory=Counter)
    """Number of images that are right in this part."""

    @property
    def share(self) -> float:
        """Share of the judged images that are right, 0..1; NaN if there are none."""
        return self.right / self.pictures if self.pictures else float("nan")

    def add(self, verdict: Verdict) -> None:
        self.pictures += 1
        self.right += verdict.all
        self.parts.update(part for part, right in asdict(verdict).items() if right)

    def as_dict(self) -> dict:
        parts = {part: self.parts[part] / self.pictures for part in PARTS} if self.pictures else {}
        share = self.share if self.pictures else None
        return {
            "share": share,
            "right": self.right,
            "pictures": self.pictures,
            "unjudged": self.unjudged,
            "parts": parts,
        }


def score(folder: str | os.PathLike) -> Score:
    """Judge a finished run folder.

    Raises:
        FastgenError: the folder has no results.jsonl and run.json.
    """
    total = Score()
    for path, wish in pictures(Path(folder)):
        if wish is None or path is None:
            total.unjudged += 1
        else:
            total.add(match(wish, load(path)))
    return total


def load(path: Path) -> Scene:
    """The scene in an image file."""
    with Image.open(path) as picture:
        return read(np.asarray(picture.convert("RGB")))


def pictures(folder: Path) -> Iterator[tuple[Path | None, Wish | None]]:
    """Each image of a run with what it should show; None if that is unknown."""
    try:
        settings = json.loads((folder / "run.json").read_text("utf-8"))["settings"]
    except (OSError, ValueError, KeyError) as error:
        raise FastgenError(f"{folder}: not a run folder (run.json: {error}); give the -o of a finished run") from None
    table = folder / "results.jsonl"
    if not table.exists():
        raise FastgenError(f"{folder}: results.jsonl is missing, so the run has not finished; run its command again")
    for row in read_rows(table, 0):
        fields = row.fields()
        made = fields.get(settings["output_key"]) or [None]
        try:
            wishes = _wishes(fields, settings)
        except (InputError, OSError):
            wishes = [None]
        copies = max(1, len(made) // len(wishes))
        for index, path in enumerate(made):
            yield (folder / path if path else None), (wishes[min(index // copies, len(wishes) - 1)] if path else None)


def _wishes(fields: dict, settings: dict) -> list[Wish | None]:
    """What the row's images should show: one wish per turn (t2i), or one in total (edit)."""
    prompts = read_prompts(fields, settings["task"])
    if settings["task"] == "t2i":
        return [parse(prompt) for prompt in prompts]
    _, inputs = read_images(fields, settings["image_root"], "edit")
    if len(inputs) > 1 or any(fields.get(name) for name in masks.FIELDS):
        return [None]
    scene = load(Path(inputs[0]))
    for prompt in prompts:
        edit = parse_edit(prompt)
        after = apply(edit, scene) if edit else None
        if after is None:
            return [None]
        scene = after
    return [as_wish(scene)]


def main() -> None:
    arguments = [a for a in sys.argv[1:] if a != "--json"]
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise SystemExit(__doc__)
    try:
        found = score(arguments[0])
    except FastgenError as error:
        raise SystemExit(f"error: {error}") from None
    if "--json" in sys.argv:
        print(json.dumps(found.as_dict()))
        return
    print(f"{found.right} of {found.pictures} images show everything that was asked for ({found.share:.1%})")
    for part in PARTS if found.pictures else ():
        print(f"  {part:<11}{found.parts[part] / found.pictures:7.1%}")
    if found.unjudged:
        print(f"{found.unjudged} not judged: no image, a mask, several inputs, or words that are not in the grammar")


if __name__ == "__main__":
    main()
