"""What operators read from a row, from the given column or its usual other name. Does not know servings."""

from __future__ import annotations

import os
from typing import Any

CONVERSATIONS = ("conversations", "conversation")
IMAGES = ("images", "image")
USERS = ("user", "human")
MASKS = ("mask", "mask_path")
WORDS = ("mask_convention", "size", "quality", "background", "aspect_ratio", "resolution", "use_variations")
EXTRAS = (*MASKS, *WORDS)
"""Columns that image servings understand besides prompt and image."""


def value_of(row: dict, key: str | None, others: tuple[str, ...]) -> Any:
    """The column `key`. If the row has nothing there, the one of `others` that it has, if `key` is one of them."""
    names = (key, *others) if key in others else (key,)
    return next((row[name] for name in names if name in row and row[name] not in (None, "", [])), None)


def cell_of(row: dict, column: str) -> Any:
    """What a row has in a column, "" for nothing."""
    return "" if row.get(column) is None else row[column]


def user_turns(conversation: Any) -> list[tuple[int, str]]:
    """(position, text) of the user turns with a text; a turn without a role is the user's."""
    if isinstance(conversation, str):
        conversation = [{"content": conversation}]
    found = []
    for place, turn in enumerate(conversation if isinstance(conversation, list) else ()):
        if not isinstance(turn, dict):
            continue
        text = turn.get("content", turn.get("value"))
        if turn.get("role", turn.get("from", "user")) in USERS and isinstance(text, str) and text.strip():
            found.append((place, text))
    return found


def done(value: Any) -> bool:
    """Whether an output column is filled: [""] and [] mean that it is not."""
    return isinstance(value, list) and bool(value) and value[0] not in ("", None)


def listed(value: Any) -> list:
    return list(value) if isinstance(value, list | tuple) else [] if value in (None, "") else [value]


def extras(row: dict, folder: str) -> dict:
    found = {name: row[name] for name in EXTRAS if row.get(name) not in (None, "", False)}
    return {name: located(value, folder) if name in MASKS else value for name, value in found.items()}


def located(path: Any, folder: str) -> Any:
    """The path relative to `folder`, the folder of the input file; if nothing is there, to the current folder."""
    if not isinstance(path, str) or os.path.isabs(path):
        return path
    there, here = os.path.join(folder, path), os.path.abspath(path)
    return here if not os.path.exists(there) and os.path.exists(here) else there
