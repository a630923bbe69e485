"""`fastgen demo`: prompts -> images -> edits -> captions on the embedded models, judged by the scene reader, on one
sheet.

The images come from the same kind of runs as those of `fastgen t2i` and `fastgen edit`; the run folders stay beside the
sheet.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

import fastgen
from fastgen.embedded.captioner import Captioner
from fastgen.embedded.scenes import (
    CANVASES,
    Scene,
    Shape,
    Verdict,
    Wish,
    apply,
    as_wish,
    describe,
    match,
    parse,
    parse_edit,
    random_edit,
    random_scene,
)
from fastgen.embedded.score import load
from fastgen.types import Task

FIRST = "a red circle on a blue background"
INSTRUCTION = "Describe the image."


@dataclass
class Panel:
    """One image, with what was asked for and how it was judged."""

    asked: str
    picture: Path
    right: bool
    """The judgement of the scene reader."""
    caption: str = ""
    caption_right: bool = False
    """Whether the caption agrees with what the reader sees."""


def run(out: Path, count: int = 6, seed: int = 0, say: Callable[[str], None] = print) -> tuple[Path, dict[str, int]]:
    """Make the demo in `out`; `say` is called for each step.

    Returns:
        The contact sheet, and how many of `count` prompts, of `count` edits and of twice as many captions were right.

    Raises:
        FastgenError: a run could not continue.
    """
    rng = random.Random(f"demo-{seed}")
    scenes = [random_scene(rng, CANVASES[i % len(CANVASES)], shapes=1 if i % 3 == 0 else 2) for i in range(count)]
    scenes[0] = Scene("blue", (Shape("circle", "red", "large", "center"),))
    prompts = [FIRST, *(describe(scene, rng).text for scene in scenes[1:])]
    sizes = [f"{scene.width}x{scene.height}" for scene in scenes]
    say(f"images from {count} prompts ...")
    rows = [
        {"id": f"scene{i}", "prompt": prompt, "size": size, "seed": seed + i}
        for i, (prompt, size) in enumerate(zip(prompts, sizes, strict=True))
    ]
    made = _run("t2i", out / "t2i", rows)
    drawn = [load(path) for path in made]
    panels = [Panel(p, path, _drawn(p, scene).all) for p, path, scene in zip(prompts, made, drawn, strict=True)]

    say("an edit of each ...")
    operations = ("recolor", "background", "add", "move", "resize", "remove")
    edits = []
    for index, scene in enumerate(scenes):
        try:
            _, said, _ = random_edit(scene, rng, operations[index % len(operations)])
        except ValueError:  # no room in this scene
            _, said, _ = random_edit(scene, rng, "background")
        edits.append(said.text)
    rows = [
        {"id": f"edit{i}", "image": os.path.relpath(path, out), "prompt": text, "seed": seed + i}
        for i, (path, text) in enumerate(zip(made, edits, strict=True))
    ]
    made = _run("edit", out / "edit", rows, image_root=out)
    for text, path, scene in zip(edits, made, drawn, strict=True):
        panels.append(Panel(text, path, _edited(text, scene, path).all))

    say("captions of all of them ...")
    captioner = Captioner()
    for panel in panels:
        with Image.open(panel.picture) as picture:
            panel.caption = captioner.ask(picture, INSTRUCTION)
        panel.caption_right = _drawn(panel.caption, load(panel.picture)).all
    sheet = out / "sheet.png"
    contact_sheet(panels[:count], panels[count:], sheet)
    return sheet, {
        "pictures": sum(panel.right for panel in panels[:count]),
        "edits": sum(panel.right for panel in panels[count:]),
        "captions": sum(panel.caption_right for panel in panels),
    }


def _drawn(text: str, scene: Scene) -> Verdict:
    """Whether the scene is what a text asks for or describes."""
    return match(parse(text) or Wish(None, ()), scene)


def _edited(text: str, before: Scene, path: Path) -> Verdict:
    edit = parse_edit(text)
    after = apply(edit, before) if edit else None
    return match(as_wish(after) if after else Wish(None, ()), load(path))


def _run(task: Task, out: Path, rows: list[dict], **flags: Any) -> list[Path]:
    """The images of a run on the embedded model, one per row."""
    settings = fastgen.resolve(task, out=out, model="tiny", gpus="cpu", fresh=True, **flags)
    found = {}
    for result in fastgen.generate(settings, rows):
        if isinstance(result, fastgen.Failed):
            raise fastgen.EngineError(f"{task}: {result.message}")
        found[result.id] = out / result.paths[0]
    return [found[row["id"]] for row in rows]


TEXT, GOOD, BAD, PAPER = "#222222", "#1a7f37", "#c62828", "#ffffff"


def contact_sheet(above: list[Panel], below: list[Panel], path: Path, width: int = 235, scale: float = 1.1) -> None:
    """Two rows of panels, images above their edits, each with its text and its judgement."""
    font = ImageFont.load_default(14)
    height = int(max(max(canvas) for canvas in CANVASES) * scale) + 200  # plus up to ten lines of text
    sheet = Image.new("RGB", (max(len(above), 1) * width + 20, 2 * height + 20), PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, panels in enumerate((above, below)):
        for column, panel in enumerate(panels):
            x, y = 20 + column * width, 20 + row * height
            room = width - 20
            y = _write(pen, (x, y), ("" if row == 0 else "edit: ") + panel.asked, TEXT, font, room, lines=3)
            with Image.open(panel.picture) as opened:
                picture = opened.convert("RGB")
            size = (int(picture.width * scale), int(picture.height * scale))
            sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), (x, y))
            y += size[1] + 6
            mark, color = ("as asked", GOOD) if panel.right else ("not as asked", BAD)
            y = _write(pen, (x, y), f"reader: {mark}", color, font, room, lines=1)
            _write(pen, (x, y), f"VLM: {panel.caption}", GOOD if panel.caption_right else BAD, font, room, lines=4)
    sheet.save(path)


def _write(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, color: str, font: Any, room: int, lines: int
) -> int:
    """Write wrapped text with the height of at least `lines` lines; returns the y below it."""
    rows, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and pen.textlength(longer, font) > room:
            rows.append(line)
            line = word
        else:
            line = longer
    rows.append(line)
    for number, row in enumerate(rows):
        pen.text((at[0], at[1] + 17 * number), row, color, font)
    return at[1] + 17 * max(lines, len(rows)) + 4
