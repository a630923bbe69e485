"""Edits of scenes: an instruction in English, the scene after it, and the pixels it may change; and back from English.

Six kinds: recolour, change the background, remove, add, resize, move.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np

from fastgen.embedded.scenes.language import (
    KIND_WORDS,
    PLACE_WORDS,
    SIZE_WORDS,
    Text,
    Wanted,
    phrase,
    place_of,
    words_of,
)
from fastgen.embedded.scenes.world import COLORS, MOST_SHAPES, PLACES, Scene, Shape, draw, random_shape, room_for

OPERATIONS = {"recolor": 26, "background": 20, "remove": 14, "add": 14, "resize": 12, "move": 14}
"""Name -> how often it is used, in percent."""


@dataclass(frozen=True)
class Edit:
    operation: str
    target: Wanted | None = None
    """The shape that is edited; for "add" the new one."""
    color: str | None = None
    size: str | None = None
    place: str | None = None


def apply(edit: Edit, scene: Scene) -> Scene | None:
    """The scene after the edit; None if the shape it names does not exist or is ambiguous."""
    if edit.operation == "background":
        return replace(scene, background=edit.color or scene.background)
    assert edit.target is not None
    if edit.operation == "add":
        return replace(scene, shapes=(*scene.shapes, _shape(edit.target)))
    found = [s for s in scene.shapes if s.kind == edit.target.kind and edit.target.color in (None, s.color)]
    if len(found) != 1:
        return None
    (old,) = found
    others = tuple(s for s in scene.shapes if s is not old)
    if edit.operation == "remove":
        return replace(scene, shapes=others)
    new = replace(old, color=edit.color or old.color, size=edit.size or old.size, place=edit.place or old.place)
    return replace(scene, shapes=(*others, new))


def _shape(wanted: Wanted) -> Shape:
    """How it is drawn if not everything was said."""
    return Shape(wanted.kind, wanted.color or "black", wanted.size or "small", wanted.place or "center")


def changed(before: Scene, after: Scene, margin: int = 4) -> np.ndarray:
    """The mask of the edit: pixels that differ between the two drawings, grown by a margin, as bool (height, width)."""
    mask = (draw(before) != draw(after)).any(-1)
    for axis in (0, 1):
        grown = mask.copy()
        for shift in range(1, margin + 1):
            ahead, behind = np.roll(mask, shift, axis), np.roll(mask, -shift, axis)
            edge = [slice(None)] * 2
            edge[axis] = slice(0, shift)
            ahead[tuple(edge)] = False
            edge[axis] = slice(-shift, None)
            behind[tuple(edge)] = False
            grown |= ahead | behind
        mask = grown
    return mask


def random_edit(scene: Scene, rng: random.Random, operation: str | None = None) -> tuple[Edit, Text, Scene]:
    """An edit that fits the scene: the edit, its instruction, and the scene after it.

    Raises:
        ValueError: the requested operation is not possible in this scene.
    """
    names = [operation] if operation else list(OPERATIONS)
    for _ in range(60):
        name = rng.choices(names, [OPERATIONS[n] for n in names])[0]
        found = _try(name, scene, rng)
        if found is not None:
            edit, after = found
            return edit, say(edit, scene, rng), after
    raise ValueError(f"no {operation or 'edit'} is possible in {scene}")


def _try(name: str, scene: Scene, rng: random.Random) -> tuple[Edit, Scene] | None:
    free = [color for color in COLORS if color not in scene.colors]
    canvas = scene.width, scene.height
    if name == "background":
        color = rng.choice(free)
        return Edit(name, color=color), replace(scene, background=color)
    if name == "add":
        new = random_shape(rng, scene.colors)
        if len(scene.shapes) == MOST_SHAPES or not room_for(new, scene.shapes, *canvas):
            return None
        wanted = Wanted(new.kind, new.color, new.size, new.place)
        return Edit(name, wanted), replace(scene, shapes=(*scene.shapes, new))
    if not scene.shapes:
        return None
    old = rng.choice(scene.shapes)
    others = tuple(s for s in scene.shapes if s is not old)
    alone = all(s.kind != old.kind for s in others)
    target = Wanted(old.kind, None if alone and rng.random() < 0.65 else old.color)
    if name == "remove":
        return Edit(name, target), replace(scene, shapes=others)
    if name == "recolor":
        color = rng.choice(free)
        edit, new = Edit(name, target, color=color), replace(old, color=color)
    elif name == "resize":
        size = "small" if old.size == "large" else "large"
        edit, new = Edit(name, target, size=size), replace(old, size=size)
    else:
        place = rng.choice([p for p in PLACES if p != old.place])
        edit, new = Edit(name, target, place=place), replace(old, place=place)
    if not room_for(new, others, *canvas):
        return None
    return edit, replace(scene, shapes=(*others, new))


BACKGROUNDS = (
    "make the background {c}",
    "change the background to {c}",
    "turn the background {c}",
    "set the background to {c}",
    "change the background color to {c}",
    "change the color of the background to {c}",
    "paint the background {c}",
)
REMOVALS = ("remove {it}", "delete {it}", "erase {it}", "take away {it}")
RECOLORS = (
    "make {it} {c}",
    "change the color of {it} to {c}",
    "turn {it} {c}",
    "paint {it} {c}",
    "change {it} to {c}",
    "recolor {it} to {c}",
)
RESIZES = {
    "large": ("make {it} bigger", "make {it} larger", "make {it} large", "enlarge {it}"),
    "small": ("make {it} smaller", "make {it} small", "shrink {it}"),
}


def say(edit: Edit, scene: Scene, rng: random.Random) -> Text:
    """One of many wordings of an edit from `random_edit`."""
    about: int | str = "background"
    if edit.operation == "background":
        text = rng.choice(BACKGROUNDS).format(c=edit.color)
    elif edit.operation == "add":
        assert edit.target is not None
        new, about = _shape(edit.target), "new"
        said = phrase(
            new,
            kind=rng.choice(KIND_WORDS[new.kind]),
            size=rng.choice(SIZE_WORDS[new.size]),
            place=rng.choice(PLACE_WORDS[new.place]),
        )
        text = rng.choice(("add", "add", "draw", "put")) + " " + said
    else:
        target = edit.target
        assert target is not None
        about = next(i for i, s in enumerate(scene.shapes) if s.kind == target.kind and target.color in (None, s.color))
        text = _said_of(f"the {target.color + ' ' if target.color else ''}{target.kind}", edit, rng)
    text += "." if rng.random() < 0.2 else ""
    return Text(text, ((0, len(text), about),))


def _said_of(it: str, edit: Edit, rng: random.Random) -> str:
    """The wording of an edit of an existing shape."""
    if edit.operation == "remove":
        return rng.choice(REMOVALS).format(it=it)
    if edit.operation == "recolor":
        return rng.choice(RECOLORS).format(it=it, c=edit.color)
    if edit.size:
        return rng.choice(RESIZES[edit.size]).format(it=it)
    assert edit.place is not None
    to = rng.choice(PLACE_WORDS[edit.place])
    if rng.random() < 0.7:  # "move the star to the left side"
        return f"move {it} to {to.split(' ', 1)[1]}"
    return f"{rng.choice(('put', 'place', 'move'))} {it} {to}"


_BIGGER = {"bigger", "larger", "enlarge", "grow", "large"}
_SMALLER = {"smaller", "shrink", "small"}


def parse_edit(text: str) -> Edit | None:
    """The edit that an instruction asks for; None if it is not one of the six kinds."""
    words = words_of(text)
    kinds = [i for i, word in enumerate(words) if word in KIND_WORDS]
    colors = [i for i, word in enumerate(words) if word in COLORS]
    if "background" in words and not kinds:
        return Edit("background", color=words[colors[-1]]) if colors else None
    if not kinds:
        return None
    at = kinds[0]
    color = next((words[i] for i in colors if i < at), None)
    size = next((w for w in words[:at] if w in SIZE_WORDS), None)
    place = place_of(set(words[at + 1 :]))
    target, known = Wanted(words[at], color), set(words)
    if known & {"remove", "delete", "erase", "away"}:
        return Edit("remove", target)
    if known & {"add", "draw", "put", "place"} and "the" not in words[:at]:
        return Edit("add", Wanted(words[at], color, size, place))
    after = [words[i] for i in colors if i > at]
    if after:
        return Edit("recolor", target, color=after[-1])
    if known & (_BIGGER | _SMALLER):
        return Edit("resize", target, size="large" if known & _BIGGER else "small")
    return Edit("move", target, place=place) if place else None
