"""A user's row -> Request, or Failed with the field and the fix, or Prefilled. Does not know batches or workers."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec.structs import replace

from fastgen.config.checks import MAX_N, MAX_SEED, MAX_STEPS
from fastgen.config.model_cards import ModelCard
from fastgen.config.settings import IMAGE_FIELDS, PROMPT_FIELDS, Settings
from fastgen.errors import InputError
from fastgen.input import images, loras
from fastgen.input.columns import Columns
from fastgen.input.geometry import WIDEST, lay_out, stitched_width
from fastgen.input.identities import Identities, Identity, filled
from fastgen.input.loras import RowLoras
from fastgen.input.masks import read_mask
from fastgen.input.readers.rows import Row
from fastgen.input.row_schema import (
    read_api_options,
    read_contrast,
    read_dialogue,
    read_flag,
    read_images,
    read_prompts,
    read_real,
    read_size,
    read_text,
    read_whole,
)
from fastgen.input.unread_fields import misnamed_prompt, misnamed_turns
from fastgen.types import Failed, ImageParams, Request, TextParams


class Prefilled(msgspec.Struct, frozen=True):
    """A row whose output field is already filled. It is passed on unchanged."""

    id: str


class Intake:
    """Reads rows in order. One instance sees the input once.

    Args:
        say: is called once per column whose name is not a field's.
        out: the run folder, which keeps images that are inside the rows; "": they are not kept.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None] = lambda message: None, out: str | None = None):
        self.settings = settings
        self.places = places(settings, out)
        self._loras = RowLoras(settings)
        self._columns = Columns(settings.rows, settings.task, say)
        # Everything that the local engine needs is resolved even if an API comes first, because a row may end up there.
        self._first = next((link for link in settings.route if not link.backend.is_remote), settings)
        self._remote = next((link for link in settings.route if link.backend.is_remote), None)
        self._asks_service = any(link.backend.service for link in settings.route)
        """Whether a row may end up at a service; else fields with the names of its options are the user's own."""
        self._identities = Identities(settings.rows.output_key, settings.rows.id_key)

    def identify(self, row: Row) -> Identity:
        """The row's identity; its `error` is set if the row itself is bad."""
        identity = self._identities.identify(row)
        if self._columns.changed_by.isdisjoint(identity.fields) and not self._columns.by_flags:
            return identity
        view, columns = self._columns.read(identity.fields)
        return identity if view is identity.fields else replace(identity, fields=view, columns=columns)

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
        settings, remote = self._first, self._remote
        id, prompts = identity.id, read_prompts(fields, settings.task)
        own_size = read_size(fields, settings)
        size = own_size or settings.image.size
        how: dict[str, Any] = {
            "steps": read_whole(fields, "steps", settings.image.steps, 1, MAX_STEPS),
            "guidance": read_real(fields, "guidance", settings.image.guidance),
            "seed": self._seed(fields, id),
            "n": read_whole(fields, "n", settings.image.n, 1, MAX_N),
            **self.settings.image.options,
            **(read_api_options(fields) if self._asks_service else {}),
            **(read_contrast(fields, settings.model) if not settings.backend.is_remote else {}),
        }
        asked = own_size or (remote.image.size if remote else None)  # a remote backend has one only if --size was given
        base: dict[str, Any] = {"content": identity.content, "row": number, "size": asked or (0, 0)}
        base["loras"] = self._loras.read(fields) if loras.FIELD in fields else ()
        if remote:
            set_here = [name for name in ("seed", "steps", "guidance") if fields.get(name) is not None]
            base["asked"] = tuple(dict.fromkeys((*set_here, *self.settings.run.asked)))
            if fields.get("negative_prompt"):
                base["negative_prompt"] = read_text(fields["negative_prompt"], "negative_prompt")
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
        _check_images(shapes, image_field, settings.model)
        layout = lay_out(shapes, size, bool(mask), settings.model)
        base |= {"reference": layout.reference, "places": layout.places, "references": layout.references}
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
        has_prompt = settings.rows.prompt_key or any(fields.get(name) for name in PROMPT_FIELDS)
        named = "" if has_prompt else misnamed_prompt(fields)
        if not has_prompt and settings.rows.asks_text:
            named = named or misnamed_turns(fields)
        if named:
            raise InputError("it is not read; call it `prompt`, or give its name with --prompt-key", named)
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


def _check_images(shapes: list[tuple[int, int]], field: str, card: ModelCard) -> None:
    """Refuses input images that are too many, too long or too large for one edit."""
    most, apart = card.defaults.max_references, card.defaults.references_apart
    if len(shapes) > most:
        raise InputError(
            f"{len(shapes)} images; {card.name} takes at most {most} in one edit, so leave some out", field
        )
    for sheet in shapes if apart else [_side_by_side(shapes)]:
        if sheet[0] > WIDEST * sheet[1] or sheet[1] > WIDEST * sheet[0] or sheet[0] * sheet[1] > images.MAX_PIXELS:
            raise InputError(
                f"{'side by side at one height the images are' if shapes[1:] and not apart else 'the image is'} "
                f"{sheet[0]}x{sheet[1]}; the most is 16 to 1 and {images.MAX_PIXELS // 1_000_000} megapixels. Crop "
                "or scale",
                field,
            )


def _side_by_side(shapes: list[tuple[int, int]]) -> tuple[int, int]:
    """The size of all images at the height of the first one."""
    return shapes[0][0] + sum(stitched_width(shape, shapes[0][1]) for shape in shapes[1:]), shapes[0][1]


def input_paths(fields: dict, settings: Settings, where: images.Places | None = None) -> tuple[str, ...]:
    """The files that a row names, like `Request.read_paths`. Raises InputError."""
    where = where or places(settings)
    own = tuple(path for path, _ in loras.named(fields, settings))
    if settings.task == "t2i" or (settings.task == "caption" and read_flag(fields, "text_only")):
        return own
    _, paths = read_images(fields, where, settings.task)
    mask = read_mask(fields, where)[0] if settings.task == "edit" else ""
    return (*paths, mask, *own) if mask else (*paths, *own)


def row_seed(run_seed: int, id: str) -> int:
    """The seed of a row that sets none: 53 bits, derived from the run's seed and the row's id alone."""
    digest = blake2b(f"{run_seed}:{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & MAX_SEED
