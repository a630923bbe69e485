"""One column of a table in progress: answers come in any order, and the table can be written at any time; it is always
written at the end."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from fastgen.dataflow import get_logger
from fastgen.dataflow.calls import Answer
from fastgen.dataflow.utils.storage import DataFlowStorage

SHARE = 20
"""A table is written again at the earliest after this many times the seconds that the last write took."""
SAVE_INTERVAL = 50
"""Inputs between two tables, where nobody says."""


class Column:
    """Args: owners: the row number of each input; cell: what the inputs of a row become (paths, a list of texts, or a
    text); every: inputs between two tables, 0: only at the end."""

    def __init__(
        self,
        storage: DataFlowStorage,
        rows: list[dict],
        key: str,
        owners: list[int],
        cell: Literal["paths", "texts", "text"],
        every: int = 0,
    ):
        self.storage, self.rows, self.key, self.owners, self.cell, self.every = storage, rows, key, owners, cell, every
        self._answers: dict[int, Answer] = {}
        self._next = time.monotonic()

    def tell(self, place: int, answer: Answer) -> None:
        self._answers[place] = answer
        due = self.every and not len(self._answers) % self.every and len(self._answers) < len(self.owners)
        if due and (began := time.monotonic()) >= self._next:
            self._write()
            self._next = (now := time.monotonic()) + SHARE * (now - began)

    @contextmanager
    def written(self) -> Iterator[None]:
        """However the block ends, the answers so far are written. A block that fails before the first answer writes no
        table."""
        try:
            yield
        except BaseException:
            if self._answers:
                self._write()
            raise
        self._write()

    def _write(self) -> None:
        made: dict[int, list] = {owner: [] for owner in self.owners}
        for place, owner in enumerate(self.owners):
            answer = self._answers.get(place)
            if self.cell == "paths":
                made[owner] += answer.value if answer else []
            else:
                made[owner].append(answer.value if answer else "")
        cells = {owner: values[0] if self.cell == "text" else values for owner, values in made.items()}
        self.storage.write([{**row, self.key: cells[i]} if i in cells else row for i, row in enumerate(self.rows)])


def fill_pictures(
    serving: Any, task: str, inputs: list[Any], keys: list[str], tell: Callable[[int, Answer], None]
) -> None:
    """Let a serving answer the inputs. One that is not ours returns what its `generate_from_input` has under each
    key."""
    if hasattr(serving, "picture_answers"):
        serving.picture_answers(task, inputs, tell)
        return
    if hasattr(serving, "answers"):
        serving.answers(inputs, tell)
        return
    found = serving.generate_from_input(inputs) if inputs else {}
    for place, key in enumerate(keys):
        tell(place, Answer(list(found.get(key) or [])))


def fill_texts(
    serving: Any,
    conversations: list[Any],
    images: list[list],
    system_prompt: str,
    storage: DataFlowStorage,
    tell: Callable[[int, Answer], None],
    need_pictures: bool = True,
) -> None:
    """The same for texts. Run folders are inside the storage's folder, so that a killed pipeline can continue."""
    if hasattr(serving, "answers"):
        more = {"folder": getattr(storage, "cache_path", None) or "", "need_pictures": need_pictures}
        serving.answers(conversations, images, system_prompt=system_prompt, tell=tell, **more)
        return
    if not conversations:
        return
    more = {"system_prompt": system_prompt}
    if not _takes(serving.generate_from_input_messages, "system_prompt"):
        more = {}
        get_logger().warning("%s takes no system prompt, so it is left out", type(serving).__name__)
    texts = serving.generate_from_input_messages(conversations, image_list=images, **more)
    for place, text in enumerate(texts):
        tell(place, Answer(text))


def _takes(call: Callable, name: str) -> bool:
    parameters = inspect.signature(call).parameters.values()
    return any(one.name == name or one.kind is one.VAR_KEYWORD for one in parameters)
