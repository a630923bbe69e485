"""The world of the embedded models: drawn scenes, their descriptions, edits of them, and a reader of images."""

from fastgen.embedded.scenes.edits import OPERATIONS, Edit, apply, changed, parse_edit, random_edit
from fastgen.embedded.scenes.language import Text, Wanted, Wish, as_wish, caption, describe, parse
from fastgen.embedded.scenes.reader import Verdict, match, read
from fastgen.embedded.scenes.world import CANVASES, COLORS, KINDS, PLACES, SIZES, Scene, Shape, draw, random_scene

__all__ = [
    "CANVASES",
    "COLORS",
    "KINDS",
    "OPERATIONS",
    "PLACES",
    "SIZES",
    "Edit",
    "Scene",
    "Shape",
    "Text",
    "Verdict",
    "Wanted",
    "Wish",
    "apply",
    "as_wish",
    "caption",
    "changed",
    "describe",
    "draw",
    "match",
    "parse",
    "parse_edit",
    "random_edit",
    "random_scene",
    "read",
]
