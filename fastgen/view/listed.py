"""A line of a table -> what the page knows about every row from the start (`Listed`), and its details when a row is
opened. Knows no files but those that the row names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from fastgen.config.settings import IMAGE_FIELDS
from fastgen.errors import InputError
from fastgen.input.columns import Columns
from fastgen.input.embedded_pictures import NAME
from fastgen.input.images import Places
from fastgen.input.readers.rows import Row
from fastgen.input.row_schema import read_dialogue, read_images, read_prompts
from fastgen.output import artifacts
from fastgen.output.run_dir import RESULTS, RUN
from fastgen.output.writers.tables import Shape

MOST_CHARACTERS = 2000
"""Of a prompt, and of an answer, that the page has of every row; the search looks at these."""


class Listed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row, as the page lists it. The page's `data.js` knows the order of the fields."""

    id: str
    status: str
    """done, failed, kept or pending."""
    kind: str
    """Why it failed; "" if it did not."""
    prompt: str
    answer: str
    """The caption, or of a failed row the message."""
    model: str
    size: str
    """For example "1024x768"; "" if it is not known."""
    cost_usd: float
    seconds: float
    seed: int | None
    outputs: int
    """Images that were made."""
    inputs: int
    """Images that it was made from, or that a caption is about."""


class Details(msgspec.Struct, frozen=True):
    """What the page shows of a row that is opened."""

    line: str
    """Its line of the table."""
    prompts: tuple[str, ...]


class Reading:
    """Reads the lines of one run's table.

    Args:
        shape: what the table's rows look like.
        about: run.json.
    """

    def __init__(self, shape: Shape, about: dict[str, Any]):
        self.shape = shape
        self._question = str(about["settings"].get("prompt") or "") if shape.task == "caption" else ""
        self._asks_all = shape.task == "caption" and _made_pictures(str(about.get("input") or ""))
        """Whether all rows got the run's question: those of pictures that fastgen made have other prompts."""
        self._columns = Columns(shape.rows, shape.task)
        out = str(shape.out)
        self._places = Places(shape.rows.image_root or out, out)  # without a folder to write images into

    def listed(self, line: bytes) -> Listed:
        """Args: line: one line of the table, which may be damaged."""
        fields = _fields(line)
        about = _object(fields.get("fastgen"))
        status = str(about.get("status", "pending"))
        error = _object(about.get("error"))
        output = fields.get(self.shape.output_key)
        is_made = status in ("done", "kept")
        answer = str(error.get("message", ""))
        if self.shape.task == "caption" and is_made:
            answer = output if isinstance(output, str) else msgspec.json.encode(output).decode()
        width, height = about.get("width"), about.get("height")
        return Listed(
            id=str(about.get("id", "")),
            status=status,
            kind=str(error.get("kind", "")),
            prompt="\n".join(self._prompts(fields))[:MOST_CHARACTERS],
            answer=answer[:MOST_CHARACTERS],
            model=str(about.get("model", "")),
            size=f"{width}x{height}" if width and height else "",
            cost_usd=_number(about.get("cost_usd")),
            seconds=_number(about.get("seconds")),
            seed=about["seed"] if isinstance(about.get("seed"), int) else None,
            outputs=len(_paths(output)) if is_made and self.shape.task != "caption" else 0,
            inputs=self._count_inputs(fields),
        )

    def details(self, line: bytes) -> Details:
        return Details(line.decode("utf-8", "replace"), self._prompts(_fields(line)))

    def outputs(self, line: bytes) -> list[str]:
        """The absolute paths of the images that were made. Those of a row that the run has done are in its folder."""
        fields = _fields(line)
        status = _object(fields.get("fastgen")).get("status")
        if self.shape.task == "caption" or status not in ("done", "kept"):
            return []
        names = _paths(fields.get(self.shape.output_key))
        if status == "kept":  # the user's own paths
            return [path for name in names for path in self._located({"images": name})]
        return [path if _is_below(path := str(self.shape.out / name), self.shape.out) else "" for name in names]

    def inputs(self, line: bytes) -> list[str]:
        """The absolute paths of the images that the row was made from."""
        if self.shape.task == "t2i":
            return []
        return self._located(self._view(_fields(line)))

    def _located(self, view: dict) -> list[str]:
        try:
            paths = read_images(view, self._places, self.shape.task)[1]
        except InputError:
            return []
        return [self._kept(path) for path in paths]

    def _kept(self, path: str) -> str:
        """An image that was inside a row or on a server is in the run folder."""
        name = os.path.join(*Path(path).parts[-2:])
        inside = self.shape.out / name
        is_kept = NAME.fullmatch(name) or name.startswith("inputs/url-")
        return str(inside) if is_kept and not os.path.exists(path) else path

    def _view(self, fields: dict) -> dict:
        return self._columns.read({name: value for name, value in fields.items() if name != "fastgen"})[0]

    def _prompts(self, fields: dict) -> tuple[str, ...]:
        asked = _object(fields.get("fastgen")).get("prompt")
        if isinstance(asked, str):
            return (asked,)
        if self._asks_all:
            return (self._question,)
        view = self._view(fields)
        try:
            if self.shape.task == "caption":
                turns = read_dialogue(view, 0, self._question or "?")
                return tuple(text for role, text in turns if role == "user" and (self._question or text != "?"))
            return read_prompts(view, self.shape.task)
        except InputError:
            text = view.get("prompt")
            return (text,) if isinstance(text, str) and text else ()

    def _count_inputs(self, fields: dict) -> int:
        if self.shape.task == "t2i":
            return 0
        view = self._view(fields)
        value = next((view[name] for name in IMAGE_FIELDS if view.get(name) not in (None, "", [])), None)
        return len(value) if isinstance(value, list) else int(value is not None)


def _fields(line: bytes) -> dict:
    try:
        return Row(0, line).fields()
    except InputError:
        return {}


def _made_pictures(input: str) -> bool:
    """Whether INPUT is the table of a run that made or edited pictures."""
    beside = Path(input).parent / RUN
    if not Path(input).name.startswith(Path(RESULTS).stem) or not beside.is_file():
        return False
    try:
        return _object(_object(msgspec.json.decode(beside.read_bytes())).get("settings")).get("task") in ("t2i", "edit")
    except (OSError, msgspec.DecodeError):
        return False


def _object(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _paths(value: object) -> list[str]:
    """The paths in an output field: one, or a list of them."""
    values = value if isinstance(value, list) else [value]
    return [path for path in values if isinstance(path, str) and path and "\0" not in path]


def _is_below(path: str, out: Path) -> bool:
    """Whether a file is one of the run folder's, whose images may be on another disk."""
    real = os.path.realpath(path)
    roots = {os.path.realpath(out), os.path.realpath(out / artifacts.IMAGES)}
    return any(os.path.commonpath([real, root]) == root for root in roots)
