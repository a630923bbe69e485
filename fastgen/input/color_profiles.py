"""Colour profiles (ICC): converts an image's colours to sRGB, which models and services expect, and back.

Does not know files; imports Pillow on first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform

SAME = 2
"""Colours that differ from sRGB by at most this (of 255) count as sRGB, because sRGB profiles round."""
UNREADABLE = "its colour profile cannot be read, so its colours are treated as sRGB"
ONE_WAY = "its colour profile works in one direction only, so the result is saved as sRGB"
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""A profile's name for its kind of colours, and Pillow's."""


@dataclass(frozen=True)
class Colors:
    """An image without transparency, as the models see it and as its file has it."""

    srgb: Image
    """RGB."""
    own: Image
    """RGB in the colours of `profile`; the same object as `srgb` if there is nothing to convert."""
    profile: bytes = b""
    """The colour profile of `own`; b"" for sRGB."""
    notes: tuple[str, ...] = ()
    """What could not be done, for a message after the name of the file."""

    def as_own(self, picture: Image) -> Image:
        """An sRGB image in the colours of `profile`."""
        return picture if self.own is self.srgb else _apply(_transform(self.profile, back=True), picture)


def read(image: Image, profile: bytes) -> Colors:
    """The colours of a decoded image without transparency. `profile` is the one in its file, b"" for none."""
    if image.mode == "LAB":
        image, profile = _apply(_from_lab(), image), b""
    if not profile:
        return _plain(image)
    try:
        space = _space(profile)
    except Exception:  # PyCMSError, OSError and, from damaged tables, others
        return _plain(image, (UNREADABLE,))
    mode = _MODES.get(space, "")
    if mode != "RGB" and mode != image.mode.replace("1", "L"):
        return _plain(image, (UNREADABLE,))  # it is for another kind of colours
    if is_srgb(profile):
        rgb = image.convert("RGB")
        return Colors(rgb, rgb, profile)
    source = image.convert(mode)
    try:
        srgb = _apply(_transform(profile), source)
    except Exception:  # see above
        return _plain(image, (UNREADABLE,))
    if mode != "RGB":  # what is saved is RGB
        return Colors(srgb, srgb)
    try:
        _transform(profile, back=True)
    except Exception:  # see above
        return Colors(srgb, srgb, notes=(ONE_WAY,))
    return Colors(srgb, source, profile)


def is_srgb(profile: bytes) -> bool:
    """Whether images look the same without this profile; True for no profile."""
    try:
        return not profile or (_space(profile) == "RGB " and _is_srgb(profile))
    except Exception:  # see `read`
        return False


def _plain(image: Image, notes: tuple[str, ...] = ()) -> Colors:
    rgb = image.convert("RGB")
    return Colors(rgb, rgb, notes=notes)


def _apply(transform: ImageCmsTransform, image: Image) -> Image:
    from PIL import ImageCms

    made = ImageCms.applyTransform(image, transform)
    assert made is not None  # it works on a copy
    made.info.clear()
    return made


@lru_cache(64)
def _space(profile: bytes) -> str:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(BytesIO(profile)).profile.xcolor_space


@lru_cache(64)
def _is_srgb(profile: bytes) -> bool:
    """Judged by the colours, not by the profile's name: there are dozens of names."""
    from PIL import Image, ImageChops

    levels = bytes(range(0, 256, 15))
    colors = bytes(c for r in levels for g in levels for b in levels for c in (r, g, b))
    cube = Image.frombytes("RGB", (len(levels) ** 2, len(levels)), colors)
    off = ImageChops.difference(cube, _apply(_transform(profile), cube))
    return max(off.tobytes()) <= SAME


@lru_cache(64)
def _transform(profile: bytes, back: bool = False) -> ImageCmsTransform:
    """From a profile's colours to sRGB, or back."""
    from PIL import ImageCms

    own, srgb = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
    mode = _MODES[own.profile.xcolor_space]
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    if back:
        return ImageCms.buildTransform(srgb, own, "RGB", mode, intent, flags)
    return ImageCms.buildTransform(own, srgb, mode, "RGB", intent, flags)


@lru_cache(1)
def _from_lab() -> ImageCmsTransform:
    from PIL import ImageCms

    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
