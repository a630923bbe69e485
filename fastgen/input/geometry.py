"""The geometry of an edit: the size the model works at, the sheet of input images that it sees, and the saved size.

One rule holds for every edit that sets no size, and for every masked edit: the first image covers exactly the rendered
area. The input, the latents that a mask keeps and the output then have everything in the same place. Sizes are
(width, height) in pixels. Does not know files or rows.
"""

from __future__ import annotations

import math

import msgspec

from fastgen.config.model_cards import ModelCard

Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, width and height."""
NEAR = 1.125
"""An image is scaled to a size that the model was trained on if that stretches it by at most this factor."""
WIDEST = 16
"""No model gets a shape of more than this to 1."""
LONG = 4
"""Up to this many to 1 the shorter side is the trained one; beyond that the area stays the same."""
BESIDE = 1.5
"""The other images of a sheet may be this many times as wide as the first."""


class Layout(msgspec.Struct, frozen=True):
    """The sizes and places of one edit."""

    render: Size
    saved: Size
    reference: Size
    """The size of the sheet of all input images."""
    places: tuple[Box, ...]
    """The place of each input image on the sheet, in order."""
    references: tuple[Size, ...] = ()
    """The size of each input image, if the model sees them apart; then there is no sheet."""


def lay_out(shapes: list[Size], asked: Size | None, masked: bool, card: ModelCard) -> Layout:
    """The layout of an edit.

    Args:
        shapes: the sizes of the input images after EXIF orientation, at least one.
        asked: the size from the row or --size.
        masked: whether everything outside a mask must stay as it is.
    """
    first = shapes[0]
    render = asked or fit(first, card)
    # A mask promises that everything else stays as it was, so without a requested size the image keeps its own.
    saved = first if masked and not asked else render
    # The two differ only if another shape is requested: the model then has to invent what lies beside the image.
    base = render if masked or not asked else _reference(first, render, card.grid)
    if card.defaults.references_apart and (pixels := card.defaults.reference_pixels):
        seen = [_at(shape, pixels, _grid(card)) for shape in shapes]
        return Layout(render, saved, (0, 0), (), (render if masked else seen[0], *seen[1:]))
    if card.defaults.references_apart:
        others = [_at(shape, min(shape[0] * shape[1], card.defaults.pixels), card.grid) for shape in shapes[1:]]
        return Layout(render, saved, (0, 0), (), (base, *others))
    reference, places = _sheet(base, shapes[1:], card.grid)
    return Layout(render, saved, reference, places)


def fit(shape: Size, card: ModelCard) -> Size:
    """The size for an edit that sets none.

    It is the trained size with the nearest shape, if one is near, else the image's own shape with the shortest side
    that the model was trained on. A model without such sizes gets the shape of the image at its pixel budget.
    """
    trained = card.defaults.preferred_sizes
    if not trained:
        return _at(shape, card.defaults.pixels, _grid(card))
    nearest = min(trained, key=lambda size: abs(math.log(_aspect(size) / _aspect(shape))))
    if abs(math.log(_aspect(nearest) / _aspect(shape))) <= math.log(NEAR):
        return nearest
    short = min(min(size) for size in trained)
    area = short * short * min(max(_aspect(shape), 1 / _aspect(shape)), LONG)
    return _at(shape, min(area, card.defaults.max_pixels), card.grid)


def stitched_width(size: Size, height: int) -> int:
    """The width of an image of `size` after it is scaled to `height`."""
    return max(1, round(size[0] * height / size[1]))


def _reference(shape: Size, render: Size, grid: int) -> Size:
    """As many pixels as are rendered, in the image's own shape; the rendered size itself if the two agree to within the
    grid."""
    own = _at(shape, render[0] * render[1], grid)
    close = abs(own[0] - render[0]) <= grid and abs(own[1] - render[1]) <= grid
    return render if close else own


def _sheet(base: Size, others: list[Size], grid: int) -> tuple[Size, tuple[Box, ...]]:
    """The first image at `base`; the others to its right, or below if it is tall, which wastes the least space."""
    first = (0, 0, *base)
    if not others:
        return base, (first,)
    if base[0] >= base[1]:
        block, boxes = _block(base, [_aspect(shape) for shape in others], grid)
        return (base[0] + block, base[1]), (first, *boxes)
    block, boxes = _block(base[::-1], [1 / _aspect(shape) for shape in others], grid)
    return (base[0], base[1] + block), (first, *[(top, left, tall, wide) for left, top, wide, tall in boxes])


def _block(base: Size, aspects: list[float], grid: int) -> tuple[int, list[Box]]:
    """The width of the block to the right of `base`, and the places of images with these aspect ratios in it: in as few
    rows as fit into `BESIDE` times the width of `base`."""
    width, height = base
    most, lines, across = BESIDE * width, [aspects], 0.0
    for count in range(1, len(aspects) + 1):
        length = math.ceil(len(aspects) / count)
        lines = [aspects[start : start + length] for start in range(0, len(aspects), length)]
        across = max(map(sum, lines)) * height / len(lines)
        if across <= most:
            break
    shrink = min(1.0, most / across)
    block = max(grid, round(across * shrink / grid) * grid)
    wider = block / (across * shrink)  # because the block is rounded to the grid
    tall = height / len(lines) * shrink
    boxes = []
    for number, line in enumerate(lines):
        top, left = round(number * height / len(lines)), 0.0
        for aspect in line:
            right = left + aspect * tall * wider
            boxes.append((width + round(left), top, max(1, round(right) - round(left)), max(1, round(tall))))
            left = right
    return block, boxes


def _grid(card: ModelCard) -> int:
    """Of input images, and of an edit that sets no size."""
    return card.defaults.edit_grid or card.grid


def _aspect(shape: Size) -> float:
    return min(max(shape[0] / shape[1], 1 / WIDEST), WIDEST)


def _at(shape: Size, pixels: float, grid: int) -> Size:
    """`shape` scaled to about `pixels` pixels, with each side rounded to the grid."""
    aspect = _aspect(shape)
    width, height = math.sqrt(pixels * aspect), math.sqrt(pixels / aspect)
    return max(grid, round(width / grid) * grid), max(grid, round(height / grid) * grid)
