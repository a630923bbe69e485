"""The world of the embedded models: scenes of one to three flat shapes on a coloured background, and how they are
drawn.

Everything has a name: a scene is its words (kind, colour, size, place) plus a little jitter. Does not know language and
reads no pixels; `language.py` and `reader.py` do that.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (250, 135, 20),
    "yellow": (250, 220, 40),
    "green": (35, 160, 60),
    "blue": (40, 80, 220),
    "purple": (130, 45, 170),
    "pink": (250, 150, 195),
    "white": (248, 248, 248),
    "gray": (130, 130, 130),
    "black": (18, 18, 18),
}
PLACES: dict[str, tuple[float, float]] = {
    "top left": (0.23, 0.23),
    "top": (0.5, 0.23),
    "top right": (0.77, 0.23),
    "left": (0.23, 0.5),
    "center": (0.5, 0.5),
    "right": (0.77, 0.5),
    "bottom left": (0.23, 0.77),
    "bottom": (0.5, 0.77),
    "bottom right": (0.77, 0.77),
}
"""Centres as fractions of width and height, in reading order; `GRID` moves them a little."""
GRID = 16
"""Centres are a multiple of this many pixels from the middle of the canvas. One FLUX token is as wide, and the middle
of every canvas is on a border between tokens. So a shape covers the tokens in the same way at every place of every
canvas, and a kind is one outline to learn instead of one for each place."""
SIZES: dict[str, float] = {"small": 0.125, "large": 0.21}
"""Radius as a share of the canvas' shorter side."""
CANVASES: tuple[tuple[int, int], ...] = ((128, 128), (160, 128), (128, 160), (192, 128), (128, 192))
"""(width, height) that the models are trained on."""
JITTER, JITTER_SCALE = 0.006, 0.02
"""Maximum jitter of a centre, as a fraction of the canvas, and of a radius, as a fraction of itself."""
EDGE = 3
"""Minimum distance of a shape from the edge of the canvas, in pixels."""
MOST_SHAPES = 3


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 1


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(abs(x), abs(y)) - 0.86


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(abs(x) - 1, abs(y) - 0.36), np.maximum(abs(y) - 1, abs(x) - 0.36))


def _polygon(*corners: tuple[float, float]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Signed distance to a polygon (source: Inigo Quilez, "2D distance functions", sdPolygon)."""

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        nearest, inside = np.full(x.shape, np.inf), np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in zip(corners, (*corners[1:], corners[0]), strict=True):
            ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
            t = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, (wx - ex * t) ** 2 + (wy - ey * t) ** 2)
            if ey:
                inside ^= ((ay > y) != (by > y)) & (x < ex * wy / ey + ax)
        return np.where(inside, -1, 1) * np.sqrt(nearest)

    return distance


_TIPS = [((1.1, 0.48)[i % 2], -math.pi / 2 + i * math.pi / 5) for i in range(10)]
KINDS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _polygon((0, -0.95), (1.08, 0.92), (-1.08, 0.92)),
    "star": _polygon(*[(r * math.cos(a), r * math.sin(a) + 0.1) for r, a in _TIPS]),
    "cross": _cross,
}
"""Name -> signed distance in units of the radius, negative inside; x to the right, y downwards."""
REACH = {"circle": 1.0, "square": 1.22, "triangle": 1.42, "star": 1.1, "cross": 1.07}
"""Radius of the circle around each kind, in the same units."""
BOX = {"circle": (1.0, 1.0), "square": (0.86, 0.86), "triangle": (1.08, 0.95), "star": (1.05, 1.0), "cross": (1.0, 1.0)}
"""Half the width and height of the box around each kind, in the same units."""
USUAL: dict[int, tuple[str, ...]] = {
    1: ("center",),
    2: ("left", "right"),
    3: ("top left", "top right", "bottom"),
}
"""Number of shapes -> where they are, in the order in which they are named, if no places are given."""
ARRANGED = 0.25
"""Share of the random scenes with several shapes that are arranged like this, with large shapes."""


@dataclass(frozen=True)
class Shape:
    kind: str
    color: str
    size: str
    place: str
    dx: float = 0.0
    """Jitter of the centre, as a fraction of the canvas."""
    dy: float = 0.0
    scale: float = 1.0
    """Jitter of the radius."""

    def radius(self, width: int, height: int) -> float:
        """In pixels."""
        return SIZES[self.size] * self.scale * min(width, height)

    def center(self, width: int, height: int) -> tuple[float, float]:
        """In pixels, inside the canvas."""
        x, y = PLACES[self.place]
        room = self.radius(width, height) + EDGE
        across, down = _snapped(x, width) + self.dx * width, _snapped(y, height) + self.dy * height
        return _held(across, room, width), _held(down, room, height)

    def coverage(self, width: int, height: int) -> np.ndarray:
        """Share of each pixel that the shape covers, (height, width) in 0..1."""
        covered = np.zeros((height, width), np.float32)
        window, part = self.window(width, height)
        covered[window] = part
        return covered

    def window(self, width: int, height: int) -> tuple[tuple[slice, slice], np.ndarray]:
        """The part of the canvas (rows, columns) with the shape, and the coverage there."""
        radius, (cx, cy) = self.radius(width, height), self.center(width, height)
        room = 1.2 * radius + 2
        top, bottom = max(0, int(cy - room)), min(height, int(cy + room) + 1)
        left, right = max(0, int(cx - room)), min(width, int(cx + room) + 1)
        y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + 0.5
        distance = KINDS[self.kind]((x - cx) / radius, (y - cy) / radius) * radius
        return (slice(top, bottom), slice(left, right)), np.clip(0.5 - distance, 0, 1)


def _snapped(share: float, side: int) -> float:
    return side / 2 + GRID * round((share - 0.5) * side / GRID)


def _held(at: float, room: float, side: int) -> float:
    return min(max(at, room), side - room)


@dataclass(frozen=True)
class Scene:
    background: str
    shapes: tuple[Shape, ...]
    """In reading order: from the top left to the bottom right."""
    width: int = 128
    height: int = 128

    def __post_init__(self) -> None:
        order = list(PLACES)
        object.__setattr__(self, "shapes", tuple(sorted(self.shapes, key=lambda s: order.index(s.place))))

    @property
    def colors(self) -> set[str]:
        return {self.background, *(shape.color for shape in self.shapes)}

    @property
    def usual(self) -> bool:
        """Whether the scene is what one gets if neither sizes nor places are given."""
        return tuple(s.place for s in self.shapes) == USUAL.get(len(self.shapes)) and all(
            s.size == "large" for s in self.shapes
        )

    def words(self) -> tuple:
        """The scene without its jitter; equal words describe equal scenes."""
        return self.background, tuple((s.kind, s.color, s.size, s.place) for s in self.shapes)


def draw(scene: Scene, palette: dict[str, tuple[int, int, int]] = COLORS) -> np.ndarray:
    """The scene as uint8 (height, width, 3), with antialiased edges."""
    picture = np.empty((scene.height, scene.width, 3), np.float32)
    picture[:] = palette[scene.background]
    for shape in scene.shapes:
        window, covered = shape.window(scene.width, scene.height)
        picture[window] += covered[..., None] * (np.array(palette[shape.color], np.float32) - picture[window])
    return picture.round().astype(np.uint8)


def room_for(shape: Shape, others: tuple[Shape, ...], width: int, height: int) -> bool:
    """Whether a shape touches none of the others, judged by the circles and the boxes around them."""
    (x, y), radius = shape.center(width, height), shape.radius(width, height)
    (across, down), reach = (radius * half for half in BOX[shape.kind]), REACH[shape.kind] * radius
    for other in others:
        (ox, oy), far = other.center(width, height), other.radius(width, height)
        (o_across, o_down), o_reach = (far * half for half in BOX[other.kind]), REACH[other.kind] * far
        apart = max(
            math.hypot(x - ox, y - oy) - reach - o_reach, abs(x - ox) - across - o_across, abs(y - oy) - down - o_down
        )
        if apart < 2:
            return False
    return True


def random_shape(rng: random.Random, taken: set[str]) -> Shape:
    """A shape in a colour that is not taken."""
    return Shape(
        rng.choice(list(KINDS)),
        rng.choice([color for color in COLORS if color not in taken]),
        rng.choice(list(SIZES)),
        rng.choice(list(PLACES)),
        rng.uniform(-JITTER, JITTER),
        rng.uniform(-JITTER, JITTER),
        rng.uniform(1 - JITTER_SCALE, 1 + JITTER_SCALE),
    )


def random_scene(rng: random.Random, canvas: tuple[int, int] = CANVASES[0], shapes: int | None = None) -> Scene:
    """A scene in which no two things share a colour and no two shapes touch.

    Args:
        shapes: how many; by default one (45 %), two (40 %) or three.
    """
    count = shapes if shapes is not None else rng.choices((1, 2, 3), (45, 40, 15))[0]
    arranged = count > 1 and rng.random() < ARRANGED
    while True:
        scene = Scene(rng.choice(list(COLORS)), (), *canvas)
        for _ in range(40):
            if len(scene.shapes) == count:
                return scene
            shape = random_shape(rng, scene.colors)
            if arranged:
                shape = replace(shape, size="large", place=USUAL[count][len(scene.shapes)])
            if room_for(shape, scene.shapes, *canvas):
                scene = replace(scene, shapes=(*scene.shapes, shape))
