"""Reads the masks of edits: which field of a row names one, which of its pixels are repainted, and what to warn about.

A mask marks what is repainted in white, or with transparency (as in OpenAI's API), or by drawing on a transparent
layer. The row says which, or the pixels show it; a mask that could mean either is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastgen.errors import InputError, quoted
from fastgen.input import color_profiles, images
from fastgen.input.row_schema import read_text

if TYPE_CHECKING:
    from PIL.Image import Image

FIELDS = ("mask", "mask_image", "mask_path", "inpaint_mask", "image_mask")
"""Names of the field. All but the first come from other programs."""
CONVENTION = "mask_convention"
WHITE, BLACK = "white_is_edited", "black_is_edited"
OPAQUE, TRANSPARENT = "opaque_is_edited", "transparent_is_edited"
OPENAI = "openai"
"""`TRANSPARENT` where the mask has transparency, otherwise `WHITE`: for rows made for OpenAI's API, and drawn ones."""
CONVENTIONS = (WHITE, BLACK, OPAQUE, TRANSPARENT, OPENAI)
MIN_SELECTED = 128
"""A mask pixel of at least this (of 255) is repainted."""
HARD = 16
"""A pixel this close to black or white does not count as grey, because JPEG produces such pixels."""
SOFT = 0.05
"""No warning for fewer grey pixels than this share of the selected ones."""
_FLAT = 6.0
"""Up to this standard deviation (of 255) pixels count as one colour."""
_ALIKE = 16.0
"""Up to this mean difference (of 255) two images show the same thing."""
_SAME = 2.0
"""Up to this mean difference one colour is the image's own, and not one that was drawn with by chance. Black and white
are what masks are drawn with, so they show nothing."""


@dataclass(frozen=True)
class Mask:
    image: Image
    """Mode "L": 255 where the image is repainted, 0 elsewhere."""
    warnings: tuple[str, ...] = ()


def read_mask(fields: dict, root: str | images.Places) -> tuple[str, str, str]:
    """The absolute path of the row's mask ("" for none), the field that names it, and its convention ("" if not given).

    Raises InputError.
    """
    named = [name for name in FIELDS if fields.get(name)]
    if not named:
        return "", FIELDS[0], ""
    name, *others = named
    for other in others:
        if fields[other] != fields[name]:
            raise InputError(f"it names another mask than `{name}`; give only one of them", other)
    convention = fields.get(CONVENTION)
    if convention in (None, "", "auto"):
        convention = ""
    elif convention not in CONVENTIONS:
        raise InputError(f"{quoted(convention)}: one of {', '.join(CONVENTIONS)}, auto", CONVENTION)
    places = images.Places(root) if isinstance(root, str) else root
    value = fields[name] if isinstance(fields[name], dict) else read_text(fields[name], name)
    return places.locate(value, name), name, convention


def load_mask(
    path: str,
    size: tuple[int, int],
    field: str = "mask",
    convention: str = "",
    picture: Callable[[], Image] | None = None,
) -> Mask:
    """The mask of an image.

    Args:
        size: (width, height) of the image; a mask of the same shape but another size is scaled.
        field: the field of the row, for messages.
        convention: one of `CONVENTIONS`; "" to judge by the pixels.
        picture: returns the image, to recognise it in a mask with transparency.

    Raises:
        InputError: the mask is damaged, has another shape, could mean either, or selects nothing.
    """
    from PIL import Image

    whole = images.load_decoded(path, field)
    if whole.size != size:
        have, want = whole.size[0] / whole.size[1], size[0] / size[1]
        if abs(have / want - 1) > 0.02:
            raise InputError(
                f"{quoted(path)} is {whole.size[0]}x{whole.size[1]} and its image is {size[0]}x{size[1]}; a mask "
                "must have the shape of its image",
                field,
            )
    guess: tuple[str, ...] = ()
    if convention == OPENAI:
        convention = TRANSPARENT if _has_transparency(whole) else WHITE
    if not convention:
        convention, guess = _convention(whole, path, field, picture)
    grey = _grey(whole, convention)
    warnings = (*guess, *_soft(grey))
    grey = grey if grey.size == size else grey.resize(size, Image.Resampling.NEAREST)
    mask = grey.point(lambda value: 255 if value >= MIN_SELECTED else 0)
    least, most = mask.getextrema()
    if not most:
        raise InputError(
            f"{quoted(path)} selects nothing: only {_WORDS[convention]} pixels are repainted (at least "
            f"{MIN_SELECTED} of 255; the highest here is {grey.getextrema()[1]}). If the mask means the opposite, set "
            f"`{CONVENTION}` to one of {', '.join(CONVENTIONS)}",
            field,
        )
    if least:
        warnings += ("the mask selects the whole image, so all of it is repainted",)
    return Mask(mask, warnings)


_WORDS = {WHITE: "white", BLACK: "black", OPAQUE: "opaque", TRANSPARENT: "transparent"}


def _grey(image: Image, convention: str) -> Image:
    """Mode "L": how much each pixel is selected, 0 to 255."""
    from PIL import Image as Pillow
    from PIL import ImageOps

    if convention in (OPAQUE, TRANSPARENT):
        alpha = image.convert("RGBA").getchannel("A")
        return alpha if convention == OPAQUE else ImageOps.invert(alpha)
    profile = image.info.get("icc_profile") or b""
    if images.has_alpha(image):
        see_through, image = _is_see_through(image), image.convert("RGBA")
        if see_through:  # a transparent pixel is not selected
            behind = Pillow.new("RGBA", image.size, "black" if convention == WHITE else "white")
            image = Pillow.alpha_composite(behind, image)
        image = image.convert("RGB")
    grey = color_profiles.read(image, profile).srgb.convert("L")
    return grey if convention == WHITE else ImageOps.invert(grey)


def _has_transparency(image: Image) -> bool:
    return images.has_alpha(image) and any(image.convert("RGBA").getchannel("A").histogram()[:MIN_SELECTED])


def _is_see_through(image: Image) -> bool:
    """Whether some pixels are opaque and some are not. Transparency that is the same everywhere means nothing."""
    if not images.has_alpha(image):
        return False
    counts = image.convert("RGBA").getchannel("A").histogram()
    opaque = sum(counts[MIN_SELECTED:])
    return 0 < opaque < sum(counts)


def _convention(
    image: Image, path: str, field: str, picture: Callable[[], Image] | None
) -> tuple[str, tuple[str, ...]]:
    """The convention that the pixels show, and a warning if it is a guess. Raises InputError if it could be either."""
    import numpy as np
    from PIL import Image as Pillow

    if not _is_see_through(image):
        return WHITE, ()
    array = np.asarray(image.convert("RGBA"))
    opaque = array[..., 3] >= MIN_SELECTED
    colors = array[..., :3][opaque].astype(np.float32)
    flat = float(colors.std(axis=0).max()) <= _FLAT
    shown = same = False
    if picture is not None:
        beside = picture().resize(image.size, Pillow.Resampling.BOX)
        difference = float(abs(np.asarray(beside, np.float32)[opaque] - colors).mean())
        shown, same = difference <= _ALIKE, difference <= _SAME
    drawn = flat and (colors.mean() <= HARD or colors.mean() >= 255 - HARD)
    if (shown and not flat) or (same and not drawn):
        return TRANSPARENT, ()  # the image itself with a hole in it, as for OpenAI's API
    if flat and not shown and colors.mean() >= MIN_SELECTED:
        return OPAQUE, (
            f"the mask is one light colour on a transparent background, so its opaque part is repainted; set "
            f"`{CONVENTION}` in the row if it means something else",
        )
    raise InputError(
        f"{quoted(path)} has transparency and could mean either: repaint the transparent part (as in OpenAI's API) or "
        f'the opaque part. Say which in the row: "{CONVENTION}": "{TRANSPARENT}" or "{OPAQUE}", or "{WHITE}" to use '
        "its colours",
        field,
    )


def _soft(grey: Image) -> tuple[str, ...]:
    """A warning about pixels that are only partly selected, apart from the smooth edges that drawing programs make."""
    from PIL import ImageFilter

    counts = grey.histogram()
    selected, between = sum(counts[MIN_SELECTED:]), sum(counts[HARD + 1 : 255 - HARD])
    if between <= SOFT * selected:
        return ()
    import numpy as np

    values = np.asarray(grey)
    near = [np.asarray(grey.filter(kind(5))) for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter)]
    edge = (near[0] <= HARD) & (near[1] >= 255 - HARD)
    soft = int(((values > HARD) & (values < 255 - HARD) & ~edge).sum())
    if soft <= SOFT * selected:
        return ()
    return (
        f"{soft / values.size:.0%} of the mask's pixels are grey; those with at least {MIN_SELECTED} of 255 are fully "
        "repainted, the others not at all",
    )
