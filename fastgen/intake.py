"""A user's row -> Request, or Failed with the field and the mend, or Kept. Knows nothing of batches or lanes.

Which row is which: a row's own `id`, else the id that an earlier run gave it (`fastgen.id`), else a hash of its content.
Position never counts, so rows may be inserted, removed or moved between runs. Equal rows are told apart by a counter.
"""

from __future__ import annotations

import math
from hashlib import blake2b

import msgspec

from fastgen.data import images
from fastgen.data.rows import Row
from fastgen.errors import InputError
from fastgen.settings import (
    IMAGE_FIELDS,
    MAX_N,
    MAX_SEED,
    MAX_STEPS,
    PROMPT_FIELDS,
    Settings,
    check_size,
    parse_size,
)  # fmt: skip
from fastgen.types import Failed, ImageParams, Request

MAX_PROMPT_CHARACTERS = 32_000
MAX_TURNS = 64
MAX_IMAGES = 16
USER_ROLES = ("user", "human")
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Which row this is, and what it says."""

    id: str
    content: str
    """Hash of what the row says, in hex."""
    fields: dict
    error: InputError | None = None


class Kept(msgspec.Struct, frozen=True):
    """A row whose output field is already filled; it is passed on as it is."""

    id: str


class Intake:
    """Reads rows in order. One instance sees the input once: it counts repeats, for two integers of memory a row."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._seen: dict[int, int] = {}
        """hash(id) -> hash of the content that first came with it."""
        self._repeats: dict[int, int] = {}

    def identify(self, row: Row) -> Identity:
        """The row's identity; its `error` is set where the row itself is at fault."""
        error = None
        try:
            fields = row.fields()
        except InputError as broken:
            digest = blake2b(row.raw, digest_size=8).digest()
            id, fields, error = digest.hex(), {}, broken
        else:
            key = self.settings.output_key
            content = {k: v for k, v in fields.items() if k not in ("id", "fastgen") and (k != key or filled(v))}
            digest = blake2b(_canonical(content), digest_size=8).digest()
            try:
                id = _own_id(fields) or digest.hex()
            except InputError as bad_id:
                id, error = digest.hex(), bad_id
        slot = hash(id)
        content_hash = int.from_bytes(digest, "big")
        first = self._seen.setdefault(slot, -1)
        if first == -1:
            self._seen[slot] = content_hash
            return Identity(id, digest.hex(), fields, error)
        if first != content_hash:
            clash = InputError(
                f"the id {id!r} was used by an earlier row with other content; give each row an id of its own, or none",
                "id",
            )
            return Identity(f"{id}!{digest.hex()}", digest.hex(), fields, error or clash)
        count = self._repeats.get(slot, 1) + 1
        while hash(f"{id}#{count}") in self._seen:  # somebody's own id
            count += 1
        self._repeats[slot] = count
        self._seen[hash(f"{id}#{count}")] = content_hash
        return Identity(f"{id}#{count}", digest.hex(), fields, error)

    def read(self, row: Row, identity: Identity) -> Request | Kept | Failed:
        """What is to be done about a row."""
        try:
            if identity.error:
                raise identity.error
            if filled(identity.fields.get(self.settings.output_key)):
                return Kept(identity.id)
            return self._request(identity)
        except InputError as error:
            field = f", field {error.field}" if error.field else ""
            return Failed(
                identity.id, "input", f"row {row.number}{field}: {error}", error.field, self.settings.backend,
                self.settings.model.name, identity.content,
            )  # fmt: skip

    def _request(self, identity: Identity) -> Request:
        settings, id, fields = self.settings, identity.id, identity.fields
        prompts = read_prompts(fields)
        size = read_size(fields, settings)
        steps = _whole(fields, "steps", settings.steps, 1, MAX_STEPS)
        guidance = _real(fields, "guidance", settings.guidance)
        seed = _whole(fields, "seed", None, 0, MAX_SEED)
        n = _whole(fields, "n", settings.n, 1, MAX_N)
        if seed is None:
            seed = row_seed(settings.seed, id)
        if settings.task == "t2i":
            width, height = size or settings.size
            params = ImageParams(width, height, steps, guidance, seed, n)
            return Request(id, "t2i", prompts, params, (width, height), content=identity.content)
        image_field, paths = read_images(fields, settings.image_root)
        mask = fields.get("mask") or ""
        if mask:
            mask = images.locate(_text(mask, "mask"), settings.image_root, "mask")
            images.probe(mask, "mask")
        shapes = [images.probe(path, image_field) for path in paths]
        first = shapes[0]
        render = size or settings.size or fit(first, settings)
        # A mask promises that all else stays as it was, so without a wish for a size the picture keeps its own.
        saved = first if mask and not (size or settings.size) else render
        sheet = (first[0] + sum(images.stitched_width(shape, first[1]) for shape in shapes[1:]), first[1])
        return Request(
            id, "edit", prompts, ImageParams(*saved, steps, guidance, seed, n), render, paths, mask,
            reference_size(sheet, render, settings), identity.content, image_field,
        )  # fmt: skip


def filled(value: object) -> bool:
    """Whether an output field holds a result; placeholders such as [""], [], "" and null do not."""
    if isinstance(value, list):
        return bool(value) and filled(value[0])
    return bool(value.strip()) if isinstance(value, str) else value is not None


def row_seed(run_seed: int, id: str) -> int:
    """The seed of a row that names none: from the run's seed and the row's id alone, 53 bits."""
    digest = blake2b(f"{run_seed}:{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & MAX_SEED


def read_prompts(fields: dict) -> tuple[str, ...]:
    """The user's turns: from `prompt`, else `conversations` (role, content), else `conversation` (from, value)."""
    for name in PROMPT_FIELDS:
        value = fields.get(name)
        if value is None:
            continue
        if name == "prompt":
            turns = [_text(value, name)]
        else:
            turns = _turns(value, name)
        prompts = tuple(turn for turn in turns if turn.strip())
        if not prompts:
            raise InputError("there is no text from the user in it", name)
        if len(prompts) > MAX_TURNS:
            raise InputError(f"{len(prompts)} user turns; the most is {MAX_TURNS}", name)
        for prompt in prompts:
            if len(prompt) > MAX_PROMPT_CHARACTERS:
                raise InputError(
                    f"the prompt has {len(prompt):,} characters; the most is {MAX_PROMPT_CHARACTERS:,}. Shorten it",
                    name,
                )
        return prompts
    raise InputError("no prompt: give `prompt`, `conversations` or `conversation`", "prompt")


def _turns(value: object, name: str) -> list[str]:
    shape = '[{"role": "user", "content": "..."}]' if name == "conversations" else '[{"from": "human", "value": "..."}]'
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise InputError(f"must be a list of turns: {shape}", name)
    turns = []
    for turn in value:
        role = turn.get("role", turn.get("from", "user"))
        if not isinstance(role, str):
            raise InputError(f"a turn's role must be a string: {shape}", name)
        content = turn.get("content", turn.get("value"))
        if isinstance(content, list):  # OpenAI's list of parts
            parts = [p.get("text", "") for p in content if isinstance(p, dict) and p.get("type") == "text"]
            content = "\n".join(p for p in parts if isinstance(p, str))
        if role.lower() in USER_ROLES:
            turns.append(_text(content, name) if content is not None else "")
    return turns


def read_size(fields: dict, settings: Settings) -> tuple[int, int] | None:
    """(width, height) that the row asks for, from `size` or `width` and `height`; None if it does not say."""
    size, width, height = fields.get("size"), fields.get("width"), fields.get("height")
    name = "size" if size is not None else "width"
    try:
        if size is not None:
            if isinstance(size, str):
                wanted = parse_size(size)
            elif isinstance(size, list) and len(size) == 2:
                wanted = (
                    _whole({"size": size[0]}, "size", 0, 1, 10**9),
                    _whole({"size": size[1]}, "size", 0, 1, 10**9),
                )
            else:
                raise ValueError('write it as "1024x768", width first')
            if (width is not None and width != wanted[0]) or (height is not None and height != wanted[1]):
                raise ValueError("it contradicts `width` and `height`; give one of the two")
        elif width is not None or height is not None:
            if width is None or height is None:
                name = "height" if height is None else "width"
                raise ValueError("`width` and `height` go together")
            wanted = (_whole(fields, "width", 0, 1, 10**9), _whole(fields, "height", 0, 1, 10**9))
        else:
            return None
        check_size(*wanted, settings.model)
    except ValueError as error:
        raise InputError(str(error), name) from None
    return wanted


def read_images(fields: dict, root: str) -> tuple[str, tuple[str, ...]]:
    """The field, `images` or `image`, and the absolute paths of the pictures to edit: a path or a list of them."""
    name = next((name for name in IMAGE_FIELDS if fields.get(name) not in (None, "", [])), None)
    if name is None:
        raise InputError("no picture to edit: give a path, or a list of paths, in `images` or `image`", "images")
    value = fields[name]
    paths = value if isinstance(value, list) else [value]
    if len(paths) > MAX_IMAGES:
        raise InputError(f"{len(paths)} pictures; the most is {MAX_IMAGES}", name)
    return name, tuple(images.locate(_text(path, name), root, name) for path in paths)


def fit(shape: tuple[int, int], settings: Settings) -> tuple[int, int]:
    """The size for an edit that names none: the shape of the input at the model's pixel budget, on its grid.

    A model that was trained on certain sizes gets the one of the nearest shape.
    """
    defaults = settings.model.defaults
    if defaults.preferred_sizes:
        aspect = math.log(shape[0] / shape[1])
        return min(defaults.preferred_sizes, key=lambda size: abs(math.log(size[0] / size[1]) - aspect))
    return _at(shape, defaults.pixels, settings.model.grid)


def reference_size(shape: tuple[int, int], render: tuple[int, int], settings: Settings) -> tuple[int, int]:
    """The size at which the model sees the input: as many pixels as it renders, in the input's own shape, or just the
    rendered size where the shapes agree to within the grid, so that the two lie on each other pixel by pixel."""
    grid = settings.model.grid
    own = _at(shape, render[0] * render[1], grid)
    close = abs(own[0] - render[0]) <= grid and abs(own[1] - render[1]) <= grid
    return render if close else own


def _at(shape: tuple[int, int], pixels: int, grid: int) -> tuple[int, int]:
    """`shape` scaled to about that many pixels, each side rounded to the grid."""
    aspect = min(max(shape[0] / shape[1], 1 / 16), 16)
    width, height = math.sqrt(pixels * aspect), math.sqrt(pixels / aspect)
    return max(grid, round(width / grid) * grid), max(grid, round(height / grid) * grid)


def _own_id(fields: dict) -> str:
    """The row's `id`, else the one that an earlier run gave it, else ""."""
    value = fields.get("id")
    earlier = fields.get("fastgen")
    given = earlier.get("id") if isinstance(earlier, dict) else None
    given = given.partition("!")[0] if isinstance(given, str) and _is_unicode(given) else ""
    if value is None:
        return given  # without what was added to tell it from a row with the same id
    if given.startswith(f"{value}#"):
        return given  # one of several equal rows
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"must be a string or a whole number, not {type(value).__name__}", "id")
    text = _text(str(value), "id")
    if not text.strip() or len(text) > 512:
        raise InputError("must have 1 to 512 characters", "id")
    return text


def _canonical(content: dict) -> bytes:
    try:
        return _encode_sorted(content)
    except (UnicodeEncodeError, OverflowError, ValueError, TypeError):
        return repr(sorted(content.items())).encode("utf-8", "surrogatepass")


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"must be a string, not {_type(value)}", field)
    if not _is_unicode(value):
        raise InputError("holds half of a character (a lone surrogate such as \\ud83d); mend the text", field)
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(fields: dict, name: str, default, least: int, most: int):
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"must be a whole number, not {_type(value)}", name)
    if not least <= value <= most:
        raise InputError(f"{value} is out of range: from {least} to {most}", name)
    return value


def _real(fields: dict, name: str, default: float) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"must be a number, not {_type(value)}", name)
    if not 0 <= value <= 100:  # false for NaN too
        raise InputError(f"{value} is out of range: from 0 to 100", name)
    return float(value)


def _type(value: object) -> str:
    names = {bool: "true or false", str: "a string", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), str(value))
