"""Draws the answers: pictures, captions and objects that follow from what came in, and from nothing else.

A painted area has stripes: colours of the prompt, then the mean colour of each further input picture. An edit starts
from the first input at the answer's size and paints where the mask's alpha is 0; without a mask it mixes half of the
paint into everything. So a test sees in the answer that the prompt, each picture and the mask arrived.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

STRIPE = 8


def digest(*parts: object) -> bytes:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()


def prompt_colour(prompt: str, index: int = 0) -> tuple[int, int, int]:
    """The colour of the first stripe of picture number `index` of this prompt."""
    return tuple(digest("paint", prompt, index)[:3])


def mean_colour(picture: Image.Image) -> tuple[int, int, int]:
    return picture.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))


def load(data: bytes) -> Image.Image:
    """The picture, upright and decoded to the last pixel; ValueError says what is wrong with it."""
    try:
        picture = Image.open(io.BytesIO(data))
        kind = picture.format
        picture.load()
    except Exception as error:  # Pillow has no common class for what broken files raise
        raise ValueError(str(error)) from error
    picture = ImageOps.exif_transpose(picture)
    picture.format = kind
    return picture


def encode(picture: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "jpeg":
        picture.convert("RGB").save(out, "JPEG", quality=95, subsampling=0)
    elif kind == "webp":
        picture.save(out, "WEBP", lossless=True, method=0)
    else:
        picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


def paint(
    prompt: str,
    size: tuple[int, int],
    inputs: Sequence[Image.Image] = (),
    mask: Image.Image | None = None,
    index: int = 0,
    transparent: bool = False,
) -> Image.Image:
    """Picture number `index` for this request."""
    colours = [prompt_colour(prompt, index), tuple(digest("second", prompt, index)[:3])]
    colours += [mean_colour(further) for further in inputs[1:]]
    painted = Image.new("RGB", size)
    draw = ImageDraw.Draw(painted)
    for number, top in enumerate(range(0, size[1], STRIPE)):
        draw.rectangle((0, top, size[0], top + STRIPE - 1), fill=colours[number % len(colours)])
    if inputs:
        base = inputs[0].convert("RGB").resize(size, Image.Resampling.BICUBIC)
        if mask is None:
            painted = Image.blend(base, painted, 0.5)
        else:
            # Alpha 0 means "here": any other value keeps what was there.
            alpha = mask.convert("RGBA").getchannel("A").resize(size, Image.Resampling.NEAREST)
            painted = Image.composite(base, painted, alpha.point(lambda value: 255 if value else 0))
    if transparent:
        painted = painted.convert("RGBA")
        painted.paste((0, 0, 0, 0), (0, 0, size[0] // 4, size[1] // 4))
    return painted


def caption(texts: Sequence[str], pictures: Sequence[Image.Image]) -> str:
    """A sentence with the size and mean colour of each picture and a hash of all text that came."""
    seen = ", ".join("{}x{} of #{:02x}{:02x}{:02x}".format(*one.size, *mean_colour(one)) for one in pictures)
    return f"A plain view with {seen or 'no picture'}, asked in the words {digest(*texts).hex()[:12]}."


def conform(schema: dict, text: str, root: dict | None = None) -> object:
    """A value that fits the JSON schema; its strings are `text`. Takes Gemini's upper-case type names too."""
    root = schema if root is None else root
    if "$ref" in schema:
        target: object = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return conform(target, text, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][digest(text, json.dumps(schema["enum"]))[0] % len(schema["enum"])]
    for key in ("anyOf", "oneOf", "any_of"):
        if key in schema:
            options = [one for one in schema[key] if str(one.get("type")).lower() != "null"]
            return conform((options or schema[key])[0], text, root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    kind = kind.lower()
    if kind == "object":
        return {name: conform(part, text, root) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        count = max(1, int(schema.get("minItems", schema.get("min_items", 1))))
        return [conform(schema.get("items", {"type": "string"}), text, root) for _ in range(count)]
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        value = low + digest(text)[0] % (1 + min(9, max(0, schema.get("maximum", low + 9) - low)))
        return int(value) if kind == "integer" else float(value)
    if kind == "boolean":
        return bool(digest(text)[0] % 2)
    return None if kind == "null" else text[: schema.get("maxLength", len(text))]
