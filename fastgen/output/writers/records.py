"""The table of a run folder as records of a data set: one per picture, with its prompt. For captions: one per row, with
its picture. Knows no format of data sets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fastgen.config.settings import IMAGE_FIELDS
from fastgen.errors import InputError, RunFolderError
from fastgen.input.columns import Columns
from fastgen.input.images import Places
from fastgen.input.readers.rows import read
from fastgen.input.row_schema import read_images, read_prompts
from fastgen.output import artifacts
from fastgen.output.previous import RESULTS
from fastgen.output.writers.from_journal import about
from fastgen.output.writers.tables import Shape


class Record(msgspec.Struct, frozen=True):
    """One picture of a data set, or a row without one."""

    key: str
    """A name that no other record has, without dots and folders."""
    picture: str
    """The absolute path of its file; "" for none."""
    fields: dict[str, Any]
    """`prompt` or `caption`, the user's own fields, and `fastgen`."""
    inputs: tuple[str, ...] = ()
    """edit: the absolute paths of the pictures that it was made from."""


class Records:
    """Iterate over it as often as needed.

    Args:
        out: a run folder with its table.
        keep_failed: whether rows without a result are records, too.

    Raises:
        RunFolderError: it has no table.
    """

    def __init__(self, out: Path, keep_failed: bool = False):
        said = about(out)["settings"]
        self.out, self.keep_failed = out.absolute(), keep_failed
        shape = Shape.of_run(self.out, said)
        self.task, self.output_key = shape.task, shape.output_key
        if not (out / RESULTS).is_file():
            raise RunFolderError(f"RUN {out}: has no {RESULTS}; `fastgen table {out}` makes it")
        self._columns = Columns(shape.rows, self.task)
        self._places = Places(shape.rows.image_root or str(self.out), str(self.out), str(self.out))

    def __iter__(self) -> Iterator[Record]:
        for row in read(self.out / RESULTS):
            try:
                fields = row.fields()
            except InputError:
                continue
            status = fields.get("fastgen", {}).get("status")
            if status in ("done", "kept") and fields.get(self.output_key):
                yield from self._text(fields) if self.task == "caption" else self._pictures(fields)
            elif self.keep_failed:
                yield Record(self._key(fields), "", self._own(fields))

    def _own(self, fields: dict) -> dict[str, Any]:
        """The fields of the row without those that name its pictures."""
        named = (*IMAGE_FIELDS, "file_name") if self.task != "t2i" else ("file_name",)
        return {name: value for name, value in fields.items() if name not in (self.output_key, *named)}

    def _key(self, fields: dict) -> str:
        return artifacts.stem(str(fields.get("fastgen", {}).get("id", ""))).replace(".", "_")

    def _pictures(self, fields: dict) -> Iterator[Record]:
        paths = fields[self.output_key]
        view, _ = self._columns.read({name: value for name, value in fields.items() if name != "fastgen"})
        asked = fields.get("fastgen", {}).get("prompt")
        try:
            prompts = (asked,) if isinstance(asked, str) else read_prompts(view, self.task)
        except InputError:
            prompts = ("",)
        inputs = self._inputs(view) if self.task == "edit" else ()
        copies = max(1, len(paths) // len(prompts)) if self.task == "t2i" else 1
        for number, path in enumerate(paths):
            asked = prompts[min(number // copies, len(prompts) - 1)] if self.task == "t2i" else "\n".join(prompts)
            absolute = path if os.path.isabs(path) else str(self.out / path)
            own = self._own(fields) | {"prompt": asked}
            if len(paths) > 1:  # an id of its own
                own |= {"id": _name(path), "row_id": fields.get("id")}
            yield Record(_name(path), absolute, own, inputs)

    def _text(self, fields: dict) -> Iterator[Record]:
        view, _ = self._columns.read({name: value for name, value in fields.items() if name != "fastgen"})
        pictures = self._inputs(view)
        own = {"caption": fields[self.output_key], **self._own(fields)}
        yield Record(self._key(fields), pictures[0] if pictures else "", own, pictures[1:])

    def _inputs(self, view: dict) -> tuple[str, ...]:
        try:
            return read_images(view, self._places, self.task)[1]
        except InputError:
            return ()


def _name(path: str) -> str:
    """The path of a picture as a name without dots and folders."""
    stem = os.path.splitext(path)[0].removeprefix(f"{artifacts.IMAGES}/")
    return re.sub(r"[^\w-]+", "_", stem)
