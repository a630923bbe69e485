"""The turns of a request -> messages made of parts, with the images at the `<image>` marks. Sends nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastgen.types import Request

MARK = "<image>"


def messages(
    request: Request, system: str, text: Callable[[str], Any], picture: Callable[[int], Any]
) -> list[tuple[str, list]]:
    """(role, parts) of every turn.

    Args:
        system: the system prompt for rows that have none; "" for none.
        text, picture: make a part from a text, and from image number i of `request.images`.
    """
    found: list[tuple[str, list]] = []
    if system and not any(role == "system" for role, _ in request.dialogue):
        found.append(("system", [text(system)]))
    marked = any(MARK in words for _, words in request.dialogue)
    number, first_user = 0, True
    for role, words in request.dialogue:
        parts: list = []
        if role == "user" and first_user and not marked:
            parts += [picture(i) for i in range(len(request.images))]
            first_user = False
        for index, piece in enumerate(words.split(MARK)):
            if index:
                parts.append(picture(number))
                number += 1
            if piece.strip():
                parts.append(text(piece.strip() if MARK in words else piece))
        found.append((role, parts or [text("")]))
    return found


def chat(request: Request, system: str, address: Callable[[int], Any]) -> list[dict]:
    """The messages in OpenAI's format. `address`: makes the URL of image number i, which contains its data."""

    def text(words: str) -> dict:
        return {"type": "text", "text": words}

    def picture(index: int) -> dict:
        return {"type": "image_url", "image_url": {"url": address(index)}}

    return [{"role": role, "content": _plain(parts)} for role, parts in messages(request, system, text, picture)]


def _plain(parts: list) -> list | str:
    """A single text as a string, which every server accepts in system and assistant turns."""
    return parts[0]["text"] if len(parts) == 1 and parts[0].get("type") == "text" else parts
