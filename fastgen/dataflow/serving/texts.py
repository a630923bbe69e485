"""Texts about images: conversations and their images -> rows, and the answers in order. Does not know servers.

A conversation is a text, or a list of turns as {"from", "value"} or {"role", "content"}. Each `<image>` in it is the
place of one image; without marks the images come first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fastgen
from fastgen.dataflow.calls import Answer
from fastgen.dataflow.core import VLMServingABC
from fastgen.dataflow.serving.ours import OurServing

HELPFUL = "You are a helpful assistant."


class TextServing(OurServing, VLMServingABC):
    """Answers about images.

    Args: folder: where run folders go if the caller does not say; "": nowhere, so a killed call starts from the
    beginning.
        stream: ask for answers as streams.
    """

    def __init__(
        self,
        *,
        key: str = "",
        folder: str = "",
        server: tuple[str, ...] = (),
        stream: bool = False,
        strict: bool = False,
        progress: bool = True,
        **flags: Any,
    ):
        super().__init__(strict, progress)
        self._key, self._folder, self._server, self._stream, self._flags = key, folder, server, stream, flags

    def generate_from_input(
        self,
        user_inputs: list[Any],
        system_prompt: str = HELPFUL,
        image_inputs: list | None = None,
        video_inputs: list | None = None,
        audio_inputs: list | None = None,
    ) -> list[str]:
        """A text for each input, "" if it failed."""
        return self.generate_from_input_messages(user_inputs, image_inputs, video_inputs, audio_inputs, system_prompt)

    def generate_from_input_messages(
        self,
        conversations: list[Any],
        image_list: list | None = None,
        video_list: list | None = None,
        audio_list: list | None = None,
        system_prompt: str = HELPFUL,
    ) -> list[str]:
        """A text for each conversation, "" if it failed."""
        answers = self.answers(conversations, image_list, video_list, audio_list, system_prompt)
        return [answer.text for answer in answers]

    def answers(
        self,
        conversations: list[Any],
        image_list: list | None = None,
        video_list: list | None = None,
        audio_list: list | None = None,
        system_prompt: str = HELPFUL,
        *,
        folder: str = "",
        tell: Callable[[int, Answer], None] | None = None,
        need_pictures: bool = False,
        **flags: Any,
    ) -> list[Answer]:
        """An answer a conversation, in order; `tell` gets the number and answer of each as they come.

        Args:
            need_pictures: whether a conversation without images fails; otherwise its text alone is answered.
        Raises:
            SettingsError: videos or sounds. FastgenError: the run cannot go on, or the serving is strict and inputs
                failed.
        """
        for name, media in (("videos", video_list), ("sounds", audio_list)):
            if any(one for one in _each(media, len(conversations))):
                raise fastgen.SettingsError(f"{name}: questions can be about images only")
        rows = [
            _row(conversation, images, need_pictures)
            for conversation, images in zip(conversations, _each(image_list, len(conversations)), strict=True)
        ]
        found: list[Answer] = [Answer("")] * len(rows)

        def settle(place: int, answer: Answer) -> None:
            found[place] = answer
            if tell:
                tell(place, answer)

        with ExitStack() as stack:
            folder = folder or self._folder or stack.enter_context(TemporaryDirectory(prefix="fastgen-"))
            flags = {**self._flags, "system": system_prompt or "", **flags}
            more = flags | {"folder": Path(folder), "key": self._key, "server": self._server, "stream": self._stream}
            self._run("caption", rows, [f"sample_{i}" for i in range(len(rows))], settle, **more)
        return found


def _each(media: list | None, count: int) -> list[list]:
    """One list per conversation, even for those that have none or something that is not a list."""
    if media is None:
        return [[]] * count
    if len(media) != count:
        raise ValueError(f"{len(media)} entries of images, videos or sounds for {count} conversations")
    return [
        [one for one in (item if isinstance(item, list | tuple) else [item]) if one not in (None, "")] for item in media
    ]


def _row(conversation: Any, images: list, need_pictures: bool) -> dict:
    paths = [os.path.abspath(os.path.expanduser(one)) if isinstance(one, str | os.PathLike) else one for one in images]
    said = {"prompt" if isinstance(conversation, str) else "conversations": conversation}
    return {"text_only": True, **said} if not paths and not need_pictures else {"images": paths, **said}
