"""The scene reader: kinds, colours, sizes and places from pixels alone, and whether they are what a text asked for.

It knows the palette and the outlines of the world, but not the prompt. The background is the most common colour along
the edge; a shape is a connected patch of one colour; its kind is the outline that it overlaps most.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np

from fastgen.embedded.scenes.language import Wish
from fastgen.embedded.scenes.world import COLORS, KINDS, PLACES, SIZES, Scene, Shape

_NAMES = list(COLORS)
_PALETTE = np.array(list(COLORS.values()), np.float32)
_GRID = 40
"""Side of the masks that outlines are compared on."""
LEAST_AREA = 0.004
"""Share of the canvas. A smaller patch is a speck; the smallest shape of the world, a small cross, has 0.025."""


LEAST_OVERLAP = {kind: 0.75 for kind in KINDS} | {"star": 0.7}
"""Intersection over union with the outline of the nearest kind; a patch with less is not a kind but a BLOB. Of about
250 shapes each, drawings have 0.85 and more, JPEGs and blurred drawings 0.83. Stars lose their thin tips first and go
down to 0.67."""
BLOB = "blob"


@dataclass(frozen=True)
class Verdict:
    """Which parts of a wish an image fulfils. What was not said counts as fulfilled."""

    count: bool
    background: bool
    kinds: bool
    colors: bool
    places: bool
    sizes: bool

    @property
    def all(self) -> bool:
        return self.count and self.background and self.kinds and self.colors and self.places and self.sizes


def read(picture: np.ndarray) -> Scene:
    """The scene in an image, uint8 (height, width, 3). It has at most ten shapes, without jitter."""
    pixels = np.asarray(picture, np.float32)[..., :3]
    height, width = pixels.shape[:2]
    nearest = ((pixels[:, :, None] - _PALETTE) ** 2).sum(-1).argmin(-1)
    edge = np.concatenate([nearest[:2].ravel(), nearest[-2:].ravel(), nearest[:, :2].ravel(), nearest[:, -2:].ravel()])
    background = int(np.bincount(edge, minlength=len(_NAMES)).argmax())
    ground = np.median(pixels[nearest == background], axis=0)
    distinct = np.sqrt(((pixels - ground) ** 2).sum(-1)) > 40
    shapes = []
    for patch in _patches(distinct & (nearest != background), LEAST_AREA * width * height)[:10]:
        shapes.extend(_shapes(pixels, nearest, patch, ground, width, height))
    return Scene(_NAMES[background], tuple(shapes), width, height)


def _shapes(
    pixels: np.ndarray, nearest: np.ndarray, patch: np.ndarray, ground: np.ndarray, width: int, height: int
) -> list[Shape]:
    """The shapes in a patch that differs from the background: one, or several of different colours that touch."""
    inner = _eroded(patch)
    counts = np.bincount(nearest[inner if inner.sum() > 20 else patch], minlength=len(_NAMES))
    strong = [c for c in np.argsort(-counts) if counts[c] > max(0.25 * counts.sum(), LEAST_AREA * width * height)]
    if len(strong) < 2:
        core = pixels[inner] if inner.sum() > 20 else pixels[patch]
        color = int(((_PALETTE - np.median(core, axis=0)) ** 2).sum(-1).argmin())
        return [_shape(_soft(pixels, ground, color, patch), color, width, height)]
    found: list[Shape] = []
    for color in strong:
        # Without the rim, because the blend of two other colours may look like this one.
        part = patch & (nearest == color)
        cores = _patches(_eroded(part), LEAST_AREA * width * height / 2)[:1]
        found.extend(_shape((_grown(core) & part).astype(np.float32), int(color), width, height) for core in cores)
    return found


def _soft(pixels: np.ndarray, ground: np.ndarray, color: int, patch: np.ndarray) -> np.ndarray:
    """Coverage 0..1 of each pixel near the patch: how far its colour is between background and shape."""
    way = _PALETTE[color] - ground
    share = ((pixels - ground) @ way) / max(float(way @ way), 1.0)
    return np.where(_grown(patch), share.clip(0, 1), 0)


def _shape(coverage: np.ndarray, color: int, width: int, height: int) -> Shape:
    mask = coverage > 0.5
    if not mask.any():
        mask = coverage > 0
    outline = _normal(mask)
    overlaps = {kind: (outline & known).sum() / (outline | known).sum() for kind, known in _outlines().items()}
    kind = max(overlaps, key=lambda kind: overlaps[kind])
    area = _unit_area(kind)
    if overlaps[kind] < LEAST_OVERLAP[kind]:
        kind = BLOB
    ys, xs = np.nonzero(mask)
    cx, cy = (xs.min() + xs.max() + 1) / 2, (ys.min() + ys.max() + 1) / 2
    radius = (mask.sum() / area) ** 0.5 / min(width, height)
    size = min(SIZES, key=lambda name: abs(np.log(radius / SIZES[name])))
    return Shape(kind, _NAMES[color], size, _place(cx, cy, size, width, height))


def _place(cx: float, cy: float, size: str, width: int, height: int) -> str:
    """The place with the nearest centre, for a shape of that size on that canvas."""

    centers = {place: Shape("circle", "red", size, place).center(width, height) for place in PLACES}
    # In units of the spacing between places, so that a short side counts as much as a long one.
    (left, top), (x, y) = centers["top left"], centers["center"]
    across, down = max(x - left, 1.0), max(y - top, 1.0)
    return min(PLACES, key=lambda p: ((centers[p][0] - cx) / across) ** 2 + ((centers[p][1] - cy) / down) ** 2)


def match(wish: Wish, scene: Scene) -> Verdict:
    """Compare a scene with what was asked for, using the best pairing of shapes."""
    background = wish.background in (None, scene.background)
    if len(wish.shapes) != len(scene.shapes):
        return Verdict(False, background, False, False, False, False)
    best: tuple[int, int] | None = None
    fulfilled: list[bool] = []
    for shapes in permutations(scene.shapes):
        pairs = list(zip(wish.shapes, shapes, strict=True))
        parts = [
            all(getattr(want, name) in (None, getattr(got, name)) for want, got in pairs)
            for name in ("kind", "color", "place", "size")
        ]
        singly = sum(
            getattr(w, n) in (None, getattr(g, n)) for w, g in pairs for n in ("kind", "color", "place", "size")
        )
        if best is None or (sum(parts), singly) > best:
            best, fulfilled = (sum(parts), singly), parts
    return Verdict(True, background, *fulfilled)


def _patches(mask: np.ndarray, least: float) -> list[np.ndarray]:
    """The 4-connected patches of a mask with at least `least` pixels, largest first."""
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), bool)
    padded[1:-1, 1:-1] = mask
    flat, row = padded.ravel().copy(), width + 2
    found = []
    for start in np.flatnonzero(flat):
        if not flat[start]:
            continue
        flat[start] = False
        stack, members = [int(start)], []
        while stack:
            at = stack.pop()
            members.append(at)
            for beside in (at - 1, at + 1, at - row, at + row):
                if flat[beside]:
                    flat[beside] = False
                    stack.append(beside)
        if len(members) >= least:
            patch = np.zeros(flat.shape, bool)
            patch[members] = True
            found.append(patch.reshape(padded.shape)[1:-1, 1:-1])
    return sorted(found, key=lambda patch: -int(patch.sum()))


def _around(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1).astype(np.int8)
    height, width = mask.shape
    found = np.zeros_like(mask, np.int8)
    for y in range(3):
        for x in range(3):
            found += padded[y : y + height, x : x + width]
    return found


def _eroded(mask: np.ndarray) -> np.ndarray:
    return _around(mask) == 9


def _grown(mask: np.ndarray) -> np.ndarray:
    return _around(mask) > 0


def _normal(mask: np.ndarray) -> np.ndarray:
    """A mask, scaled so that its longer side fills a square grid."""
    ys, xs = np.nonzero(mask)
    y0, y1, x0, x1 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    side = max(y1 - y0, x1 - x0)
    steps = (np.arange(_GRID) + 0.5) / _GRID - 0.5
    rows, columns = np.floor((y0 + y1) / 2 + steps * side), np.floor((x0 + x1) / 2 + steps * side)
    inside = ((rows >= y0) & (rows < y1))[:, None] & ((columns >= x0) & (columns < x1))[None]
    picked = mask[np.ix_(rows.clip(0, mask.shape[0] - 1).astype(int), columns.clip(0, mask.shape[1] - 1).astype(int))]
    return picked & inside


@cache
def _outlines() -> dict[str, np.ndarray]:
    y, x = (np.mgrid[0:320, 0:320] - 159.5) / 130
    return {kind: _normal(distance(x, y) < 0) for kind, distance in KINDS.items()}


@cache
def _unit_area(kind: str) -> float:
    y, x = (np.mgrid[0:400, 0:400] - 199.5) / 160
    return float((KINDS[kind](x, y) < 0).sum()) / 160**2
