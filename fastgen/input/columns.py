"""Which columns of the user's rows are the fields that fastgen reads: by the flags, by names that are common in data
sets, and by diffusers' names. What is read from an uncommon column is said once.

Does not change the user's row: it gives another view of it. Knows no values, except whether there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastgen.config.prompts import PROMPT
from fastgen.config.settings import IMAGE_FIELDS, PROMPT_FIELDS, Rows
from fastgen.input import masks
from fastgen.input.unread_fields import misnamed_prompt
from fastgen.types import Task

PROMPTS: dict[str, tuple[str, ...]] = {
    "t2i": ("text", "caption", "instruction", "prompts", "description", "query", "question"),
    "edit": ("edit_prompt", "edit_instruction", "instruction", "edit", "text", "query", "question", "caption"),
    "caption": ("question", "query", "instruction"),
}
"""Columns with the prompt in rows that have none of `PROMPT_FIELDS`; the first that is filled counts."""
PICTURES = (
    *("input_image", "input_images", "original_image", "source_image", "input_img", "original_img", "source_img"),
    *("src_img", "file_name", "file_names", "image_path", "image_paths", "image_file", "img_path", "img", "picture"),
    *("image_url", "url", "path", "filename"),
)
"""Columns with the images in rows that have none of `IMAGE_FIELDS`."""
INSTRUCTIONS = ("edit_prompt", "edit_instruction", "instruction", "edit")
"""Of these, those that say how to edit. Before the others, --prompt counts: they describe pictures more often."""
CAPTIONED = ("__key__", "file_name")
"""Columns of data sets whose `text` says what an image shows: shards of WebDataset, and Hugging Face's imagefolder."""
TEXT_IS_ASKED = (
    "the rows' `text` is asked as the question; if it is a caption or an alt text, --prompt-key prompt leaves it out"
)
DIFFUSERS = {"num_inference_steps": "steps", "guidance_scale": "guidance", "num_images_per_prompt": "n"}
"""diffusers' names of fields."""
_EMPTY: tuple[object, ...] = (None, "", [])


class Columns:
    """Args:
    rows: the flags that name columns.
    say: is called once per column whose name is not a field's.
    """

    def __init__(self, rows: Rows, task: Task, say: Callable[[str], None] = lambda message: None):
        self._rows, self._task, self._say = rows, task, say
        self._said: set[tuple[str, str]] = set()
        self._prompts = (*PROMPTS[task], "text") if rows.asks_text else PROMPTS[task]
        self._diffusers = {} if task == "caption" else DIFFUSERS
        self._uncommon = {*self._prompts, *self._diffusers, *(PICTURES if task != "t2i" else ())}
        self.changed_by = frozenset(self._uncommon | {"fastgen", "fastgen_status"})
        """Only rows with one of these are read in another way than they are, if no flag names a column."""
        self.by_flags = bool(rows.prompt_key or rows.image_key or rows.mask_key or rows.id_key or rows.prompt)

    def read(self, fields: dict) -> tuple[dict, dict[str, str]]:
        """The row under the names of fields, and for each field that another column gave: field -> column."""
        made = _made(fields)
        if not self.by_flags and not made and self._uncommon.isdisjoint(fields):
            return fields, {}
        view, columns = dict(fields), dict[str, str]()
        self._named_by_flags(view, columns)
        if self._rows.output_is_input or (self._task == "t2i" and made == "text"):
            view.pop(self._rows.output_key, None)  # what the row is made from, and not yet a result
        self._prompt(view, columns, made)
        if self._task != "t2i" and not any(_filled(view, name) for name in IMAGE_FIELDS):
            self._take(view, columns, "images", next((name for name in PICTURES if _filled(view, name)), ""))
        for name, field in self._diffusers.items():
            if _filled(view, name) and not _filled(view, field):
                self._take(view, columns, field, name)
        return view, columns

    def _named_by_flags(self, view: dict, columns: dict[str, str]) -> None:
        rows = self._rows
        if rows.prompt_key:
            self._replace(view, columns, "prompt", rows.prompt_key, PROMPT_FIELDS)
            if isinstance(value := view.get("prompt"), list) and value and isinstance(value[0], dict):
                view["conversations"] = view.pop("prompt")
                columns["conversations"] = columns.pop("prompt")
        if rows.image_key and self._task != "t2i":
            self._replace(view, columns, "images", rows.image_key, IMAGE_FIELDS)
        if rows.mask_key and self._task == "edit":
            self._replace(view, columns, "mask", rows.mask_key, masks.FIELDS)
        if rows.id_key:
            self._replace(view, columns, "id", rows.id_key, ("id",))

    def _replace(self, view: dict, columns: dict[str, str], field: str, column: str, instead_of: tuple) -> None:
        value = view.get(column)
        for name in instead_of:
            view.pop(name, None)
        if value is not None:
            view[field] = value
            columns[field] = column

    def _prompt(self, view: dict, columns: dict[str, str], made: str) -> None:
        """The prompt from a column of another name, or from --prompt."""
        if self._rows.prompt_key:
            return
        had = any(_filled(view, name) for name in PROMPT_FIELDS)
        if made == "picture" and (self._task == "caption" or self._rows.prompt):
            for name in PROMPT_FIELDS:  # it made the picture
                if view.pop(name, None) is not None:
                    self._tell("", "the prompts of rows with pictures that fastgen made are not asked again (--prompt)")
        asks = self._task == "edit" and bool(self._rows.prompt)  # then a description is no instruction
        if made == "text" and self._task != "caption" and _filled(view, "caption"):
            for name in PROMPT_FIELDS:  # it asked for the caption
                view.pop(name, None)
            if not asks:
                self._take(view, columns, "prompt", "caption")
        if any(_filled(view, name) for name in PROMPT_FIELDS):
            return
        names = [name for name in self._prompts if isinstance(view.get(name), str) and view[name].strip()]
        if asks:
            names = [name for name in names if name in INSTRUCTIONS]
        if self._task == "caption" and names[:1] == ["text"] and _is_described(view):
            names = []
        if made == "picture" and (asks or self._task == "caption") and not had:
            used = next((name for name in PROMPTS["t2i"] if isinstance(view.get(name), str)), "")
            names = [name for name in names if name != used]  # it made the picture
        if names:
            self._take(view, columns, "prompt", names[0])
        elif self._rows.prompt:
            view["prompt"] = self._rows.prompt

    def _take(self, view: dict, columns: dict[str, str], field: str, column: str) -> None:
        if column:
            view[field], columns[field] = view[column], column
            is_asked = self._task == "caption" and (field, column) == ("prompt", "text")
            said = TEXT_IS_ASKED if is_asked else f"`{field}` is read from the column `{column}`"
            self._tell(field, said, column)

    def _tell(self, field: str, message: str, column: str = "") -> None:
        if (field, column) not in self._said:
            self._said.add((field, column))
            self._say(message)


def asks_text(task: Task, prompt: str, prompt_key: str) -> bool:
    """Whether `text` may be a row's question: of a caption, unless a flag says what to ask."""
    return task == "caption" and prompt == PROMPT and not prompt_key


def _is_described(fields: dict) -> bool:
    """Whether `text` is no question: by the data set's convention, or because another field plainly is meant as one."""
    return any(_filled(fields, name) for name in CAPTIONED) or bool(misnamed_prompt(fields))


def _filled(fields: dict, name: str) -> bool:
    return fields.get(name) not in _EMPTY


def _made(fields: dict) -> str:
    """What an earlier run of fastgen made of the row: "picture", "text" or ""."""
    about: Any = fields.get("fastgen")
    if about is None and fields.get("fastgen_status") == "done":  # a data set that `fastgen export` wrote
        return "text" if "caption" in fields else "picture"
    if not isinstance(about, dict) or about.get("status") != "done":
        return ""
    return "text" if "max_tokens" in about else "picture"
