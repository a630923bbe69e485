"""A user's row -> Request, or Failed with the field and the fix, or Prefilled. Does not know batches or workers.

A row is known by its own `id`, else by the id that an earlier run gave it (`fastgen.id`), else by a hash of its
content. Its position never counts, so rows may be inserted, removed or moved between runs. Equal rows are told apart by
a counter.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from fastgen.config.checks import MAX_N, MAX_SEED, MAX_STEPS
from fastgen.config.settings import IMAGE_FIELDS, Settings
from fastgen.errors import InputError, quoted
from fastgen.input import images
from fastgen.input.columns import Columns
from fastgen.input.geometry import WIDEST, lay_out, stitched_width
from fastgen.input.masks import read_mask
from fastgen.input.readers import python_rows
from fastgen.input.readers.row import Row
from fastgen.input.row_schema import (
    is_unicode,
    read_api_options,
    read_dialogue,
    read_flag,
    read_images,
    read_prompts,
    read_real,
    read_size,
    read_text,
    read_whole,
    type_name,
)
from fastgen.types import Failed, ImageParams, Request, TextParams

_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Which row this is, and a hash of what it says."""

    id: str
    content: str
    """Hash of what the row says, in hex."""
    fields: dict
    """The row under the names of fields; see `Columns`."""
    error: InputError | None = None
    columns: dict[str, str] = {}
    """Field -> the user's column that it is read from, where their names differ."""


class Prefilled(msgspec.Struct, frozen=True):
    """A row whose output field is already filled. It is passed on unchanged."""

    id: str


class Intake:
    """Reads rows in order. One instance sees the input once. To count repeats it keeps two integers per row in
    memory.

    Args:
        say: is called once per column whose name is not a field's.
        out: the run folder, which keeps images that are inside the rows; "": they are not kept.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None] = lambda message: None, out: str | None = None):
        self.settings = settings
        self.places = places(settings, out)
        self._columns = Columns(settings.rows, settings.task, say)
        self._seen: dict[int, int] = {}
        """hash(id) -> hash of the content that first had this id."""
        self._repeats: dict[int, int] = {}

    def identify(self, row: Row) -> Identity:
        """The row's identity; its `error` is set if the row itself is bad."""
        error, columns = None, dict[str, str]()
        fields: dict = {}
        try:
            own = row.fields()
            error = python_rows.problem(own)
        except InputError as broken:
            digest = blake2b(row.raw, digest_size=8).digest()
            id, error = digest.hex(), broken
        else:
            key, names = self.settings.rows.output_key, ("id", "fastgen", self.settings.rows.id_key or "id")
            content = {k: v for k, v in own.items() if k not in names and (k != key or filled(v))}
            digest = blake2b(_canonical(content), digest_size=8).digest()
            fields, columns = self._columns.read(own)
            try:
                id = _own_id(fields) or digest.hex()
            except InputError as bad_id:
                id, error = digest.hex(), error or bad_id
        content_digest = digest.hex()
        content_hash = int.from_bytes(digest, "big")
        if self._seen.get(hash(id), content_hash) != content_hash:
            error = error or InputError(
                f"the id '{quoted(id)}' was used by an earlier row with different content; give each row its own id, "
                "or none",
                "id",
            )
            id = f"{id}!{content_digest}"
        slot = hash(id)
        if slot not in self._seen:
            self._seen[slot] = content_hash
            return Identity(id, content_digest, fields, error, columns)
        count = self._repeats.get(slot, 1) + 1
        while hash(f"{id}#{count}") in self._seen:  # somebody's own id
            count += 1
        self._repeats[slot] = count
        self._seen[hash(f"{id}#{count}")] = content_hash
        return Identity(f"{id}#{count}", content_digest, fields, error, columns)

    def read(self, row: Row, identity: Identity) -> Request | Prefilled | Failed:
        """Decides what to do with a row."""
        try:
            if identity.error:
                raise identity.error
            if filled(identity.fields.get(self.settings.rows.output_key)):
                return Prefilled(identity.id)
            return self._request(identity, row.number)
        except InputError as error:
            column = identity.columns.get(error.field, error.field)
            field = f", field {column}" if column else ""
            return Failed(
                identity.id,
                "input",
                f"row {row.number}{field}: {error}",
                column,
                self.settings.backend.name,
                self.settings.model.name,
                identity.content,
            )

    def _request(self, identity: Identity, number: int) -> Request:
        fields = identity.fields
        if self.settings.task == "caption":
            return self._caption(identity, number)
        # Everything that the local engine needs is resolved even if an API comes first, because a row may end up here.
        settings = next((link for link in self.settings.route if not link.backend.is_remote), self.settings)
        id, prompts = identity.id, read_prompts(fields, settings.task)
        own_size = read_size(fields, settings)
        size = own_size or settings.image.size
        how: dict[str, Any] = {
            "steps": read_whole(fields, "steps", settings.image.steps, 1, MAX_STEPS),
            "guidance": read_real(fields, "guidance", settings.image.guidance),
            "seed": self._seed(fields, id),
            "n": read_whole(fields, "n", settings.image.n, 1, MAX_N),
            **read_api_options(fields, self.settings),
        }
        remote = next((link for link in self.settings.route if link.backend.is_remote), None)
        asked = own_size or (remote.image.size if remote else None)  # a remote backend has one only if --size was given
        base: dict[str, Any] = {"content": identity.content, "row": number, "size": asked or (0, 0)}
        if settings.task == "t2i":
            width, height = size or (0, 0)
            return Request(id, "t2i", prompts, ImageParams(width, height, **how), (width, height), **base)
        image_field, paths = read_images(fields, self.places, settings.task)
        mask, mask_field, convention = read_mask(fields, self.places)
        if mask:
            images.probe(mask, mask_field)
        shapes = [images.probe(path, image_field) for path in paths]
        called = identity.columns
        base |= {"images": paths, "image_field": called.get(image_field, image_field)}
        base |= {"mask": mask, "mask_field": called.get(mask_field, mask_field), "mask_convention": convention}
        base |= {"keep_turns": read_flag(fields, "keep_turns"), "variation": read_flag(fields, "use_variations")}
        if settings.backend.is_remote:
            return Request(id, "edit", prompts, ImageParams(*(size or (0, 0)), **how), **base)
        sheet = (shapes[0][0] + sum(stitched_width(shape, shapes[0][1]) for shape in shapes[1:]), shapes[0][1])
        if sheet[0] > WIDEST * sheet[1] or sheet[1] > WIDEST * sheet[0] or sheet[0] * sheet[1] > images.MAX_PIXELS:
            raise InputError(
                f"{'side by side at one height the images are' if paths[1:] else 'the image is'} "
                f"{sheet[0]}x{sheet[1]}; the most is 16 to 1 and {images.MAX_PIXELS // 1_000_000} megapixels. Crop "
                "or scale",
                image_field,
            )
        layout = lay_out(shapes, size, bool(mask), settings.model)
        base |= {"reference": layout.reference, "places": layout.places}
        return Request(id, "edit", prompts, ImageParams(*layout.saved, **how), layout.render, **base)

    def _caption(self, identity: Identity, number: int) -> Request:
        settings, fields = self.settings, identity.fields
        image_field, paths = "images", tuple[str, ...]()
        if not (text_only := read_flag(fields, "text_only")):
            image_field, paths = read_images(fields, self.places, settings.task)
        elif named := next((name for name in IMAGE_FIELDS if fields.get(name)), ""):
            raise InputError(f"it is true, and `{named}` names images; leave one of the two out", "text_only")
        for path in paths:
            images.check_file(path, image_field)
        text = settings.text
        params = TextParams(
            read_whole(fields, "max_tokens", text.max_tokens, 1, 1_000_000),
            read_real(fields, "temperature", text.temperature),
            self._seed(fields, identity.id) & 0x7FFFFFFF,
        )
        dialogue = read_dialogue(fields, len(paths), "" if text_only else text.prompt)
        if text_only and not dialogue[-1][1].strip():
            raise InputError("it asks nothing; a row with `text_only` needs a prompt", "prompt")
        return Request(
            identity.id,
            "caption",
            (),
            params,
            images=paths,
            dialogue=dialogue,
            content=identity.content,
            row=number,
            image_field=identity.columns.get(image_field, image_field),
        )

    def _seed(self, fields: dict, id: str) -> int:
        if fields.get("seed") is None:
            return row_seed(self.settings.rows.seed, id)
        return read_whole(fields, "seed", 0, 0, MAX_SEED)


def places(settings: Settings, out: str | None = None) -> images.Places:
    """Where the images of a run's rows are. `out`: see `Intake`; None: the run folder."""
    rows = settings.rows
    return images.Places(rows.image_root, rows.other_root, settings.run.out if out is None else out)


def input_paths(fields: dict, settings: Settings, where: images.Places | None = None) -> tuple[str, ...]:
    """The images that a row names, the mask last, like `Request.input_paths`. Raises InputError."""
    where = where or places(settings)
    if settings.task == "t2i" or (settings.task == "caption" and read_flag(fields, "text_only")):
        return ()
    _, paths = read_images(fields, where, settings.task)
    mask = read_mask(fields, where)[0] if settings.task == "edit" else ""
    return (*paths, mask) if mask else paths


def filled(value: object) -> bool:
    """Whether an output field has a result. Placeholders such as [""], [], "" and null are not results."""
    if isinstance(value, list):
        return bool(value) and filled(value[0])
    return bool(value.strip()) if isinstance(value, str) else value is not None


def row_seed(run_seed: int, id: str) -> int:
    """The seed of a row that sets none: 53 bits, derived from the run's seed and the row's id alone."""
    digest = blake2b(f"{run_seed}:{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & MAX_SEED


def _own_id(fields: dict) -> str:
    """The row's `id`, else the id that an earlier run gave it, else ""."""
    value = fields.get("id")
    earlier = fields.get("fastgen")
    given = earlier.get("id") if isinstance(earlier, dict) else None
    given = given.partition("!")[0] if isinstance(given, str) and is_unicode(given) else ""
    if value is None:
        return given  # without what was added to tell it from a row with the same id
    if given.startswith(f"{value}#"):
        return given  # one of several equal rows
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"must be a string or a whole number, not {type_name(value)}", "id")
    text = read_text(str(value), "id")
    if not text.strip() or len(text) > 512:
        raise InputError("must have 1 to 512 characters", "id")
    return text


def _canonical(content: dict) -> bytes:
    try:
        return _encode_sorted(content)
    except (UnicodeEncodeError, OverflowError, ValueError, TypeError):
        return repr(sorted(content.items())).encode("utf-8", "surrogatepass")
