"""Scenes in words: varied English for a scene, the one canonical caption, and back from English to what it asks for.

`parse` understands everything that `describe` and `caption` write, in any mixture; it ignores unknown words. Draws and
reads no pixels.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import pairwise

from fastgen.embedded.scenes.world import COLORS, Scene, Shape

KIND_WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square",),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "plus"),
}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
PLACE_WORDS = {
    "top left": ("at the top left", "in the top left corner", "in the upper left", "in the upper left corner"),
    "top": ("at the top", "at the top center", "in the top middle"),
    "top right": ("at the top right", "in the top right corner", "in the upper right", "in the upper right corner"),
    "left": ("on the left", "at the left", "on the left side"),
    "center": ("in the center", "in the middle", "at the center"),
    "right": ("on the right", "at the right", "on the right side"),
    "bottom left": ("at the bottom left", "in the bottom left corner", "in the lower left", "in the lower left corner"),
    "bottom": ("at the bottom", "at the bottom center", "in the bottom middle"),
    "bottom right": (
        "at the bottom right",
        "in the bottom right corner",
        "in the lower right",
        "in the lower right corner",
    ),
}
"""Captions use the first of each."""

_SPELLINGS = {
    "grey": "gray",
    "centre": "center",
    "middle": "center",
    "centered": "center",
    "upper": "top",
    "lower": "bottom",
    "tiny": "small",
    "little": "small",
    "big": "large",
    "huge": "large",
    "disc": "circle",
    "disk": "circle",
    "dot": "circle",
    "plus": "cross",
    "box": "square",
}
_ACROSS, _DOWN = {"left", "right"}, {"top", "bottom"}


@dataclass(frozen=True)
class Text:
    """A text and what its parts are about: (start, end, subject); a subject is the index of a shape or
    "background"."""

    text: str
    spans: tuple[tuple[int, int, int | str], ...] = ()


@dataclass(frozen=True)
class Wanted:
    """A shape as a text asks for it; None for what the text does not say."""

    kind: str
    color: str | None = None
    size: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Wish:
    """A scene as a text asks for it."""

    background: str | None
    shapes: tuple[Wanted, ...]


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def phrase(shape: Shape, *, size: str = "", kind: str = "", place: str = "", article_: bool = True) -> str:
    words = [w for w in (size, shape.color, kind or shape.kind) if w]
    if article_:
        words.insert(0, article(words[0]))
    return " ".join([*words, place] if place else words)


def caption(scene: Scene) -> str:
    """The canonical caption: every shape with all its properties, in reading order.

    "a large red circle at the top left and a small blue star on the right on a green background"
    """
    if not scene.shapes:
        return f"an empty {scene.background} background"
    parts = [phrase(s, size=s.size, place=PLACE_WORDS[s.place][0]) for s in scene.shapes]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"{listed} on {article(scene.background)} {scene.background} background"


def describe(scene: Scene, rng: random.Random) -> Text:
    """One of many English descriptions. Defaults may be left out: that a shape is large or in the center, that several
    shapes are where `USUAL` has them, in the order in which they are named; and sometimes the background."""
    written = _Writer()
    background = f"{article(scene.background)} {scene.background} background"
    if not scene.shapes:
        before = rng.choice(("a plain ", "an empty ", "just a ", "nothing on a "))
        return written.add(before).add(f"{scene.background} background", "background").text(rng)
    if rng.random() < 0.12:
        written.add(rng.choice(("a picture of ", "an image of ", "a drawing of ", "a photo of ", "draw ", "there is ")))
    terse = rng.random() < 0.08
    form = rng.random()
    if form < 0.1:
        written.add(f"on {background}" if rng.random() < 0.5 else f"on {scene.background}", "background").add(", ")
    elif form < 0.18:
        written.add(background, "background").add(" with ")
    order = list(enumerate(scene.shapes))
    arranged = len(order) > 1 and scene.usual and rng.random() < 0.7
    if not arranged and rng.random() < 0.5:
        rng.shuffle(order)
    for at, (index, shape) in enumerate(order):
        if at:
            last = at == len(order) - 1
            written.add(
                ", " if terse or not last else rng.choice((" and ", " and ", " and ", ", ", ", and ", " with "))
            )
        said = {"kind": rng.choice(KIND_WORDS[shape.kind] if rng.random() < 0.15 else (shape.kind,))}
        if shape.size == "small" or rng.random() < 0.4:
            said["size"] = rng.choice(SIZE_WORDS[shape.size])
        if not arranged and (shape.place != "center" or rng.random() < 0.6):
            words = PLACE_WORDS[shape.place]
            said["place"] = f", {shape.place}" if terse else words[0] if rng.random() < 0.5 else rng.choice(words)
        written.add(phrase(shape, **said, article_=not terse).replace(" ,", ","), index)
    if form >= 0.18:
        if terse:
            written.add(", ").add(f"{scene.background} background", "background")
        elif form < 0.7:
            written.add(f" on {background}", "background")
        elif form < 0.8:
            written.add(f" on {scene.background}", "background")
        elif form < 0.92:
            before = rng.choice(("against", "over", "with", "in front of"))
            written.add(f" {before} {background}", "background")
        elif form < 0.97:
            written.add(rng.choice((". ", ", "))).add(f"the background is {scene.background}", "background")
    return written.text(rng)


class _Writer:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self.spans: list[tuple[int, int, int | str]] = []
        self.length = 0

    def add(self, text: str, subject: int | str | None = None) -> _Writer:
        if subject is not None:
            self.spans.append((self.length, self.length + len(text), subject))
        self.parts.append(text)
        self.length += len(text)
        return self

    def text(self, rng: random.Random) -> Text:
        text = "".join(self.parts)
        if rng.random() < 0.2:
            text += "."
        return Text(text, tuple(self.spans))


def words_of(text: str) -> list[str]:
    """Lower-case words, with one spelling for each word of the grammar."""
    return [_SPELLINGS.get(word, word) for word in re.findall(r"[a-z]+", text.lower())]


def place_of(words: set[str]) -> str | None:
    """The place named by a set of words: {"top", "left"} -> "top left"."""
    down, across = sorted(words & _DOWN), sorted(words & _ACROSS)
    if len(down) > 1 or len(across) > 1:
        return None
    return " ".join([*down, *across]) or ("center" if "center" in words else None)


def parse(text: str) -> Wish | None:
    """What a description asks for; None if it names neither a shape nor a background."""
    shapes: list[dict] = []
    background = color = size = None
    before: set[str] = set()
    """Words for a place before the first shape."""
    background_follows = False
    for last, word in pairwise(["", *words_of(text)]):
        if word in COLORS:
            if background_follows or last in ("on", "against", "over"):  # "on blue", with no article
                background, background_follows = word, False
                continue
            color = word
        elif word in SIZE_WORDS:
            size = word
        elif word in KIND_WORDS:
            shapes.append({"kind": word, "color": color, "size": size, "places": before if not shapes else set()})
            color = size = None
        elif word == "background":
            if color is not None:
                background, color = color, None
            else:
                background_follows = True
        elif word in _ACROSS | _DOWN | {"center"}:
            (shapes[-1]["places"] if shapes else before).add(word)
    if background is None:
        background = color
    if not shapes and background is None:
        return None
    wanted = (Wanted(s["kind"], s["color"], s["size"], place_of(s["places"])) for s in shapes)
    return Wish(background, tuple(wanted))


def as_wish(scene: Scene) -> Wish:
    """A scene with all its properties stated."""
    return Wish(scene.background, tuple(Wanted(s.kind, s.color, s.size, s.place) for s in scene.shapes))
