"""Conversations (or prompts) and images of a table -> texts. Both forms of turns are read: from/value and
role/content."""

from __future__ import annotations

from typing import Any

from fastgen.dataflow import get_logger
from fastgen.dataflow.core import OperatorABC
from fastgen.dataflow.operators.core_vision.generate.column import SAVE_INTERVAL, Column, fill_texts
from fastgen.dataflow.operators.core_vision.generate.rows import CONVERSATIONS, IMAGES, listed, value_of
from fastgen.dataflow.serving.texts import HELPFUL
from fastgen.dataflow.utils.storage import DataFlowStorage


class VQAOperator(OperatorABC):
    """Asks a serving one question per row and writes the answers into a column, "" if there is none."""

    need_pictures = True
    """Whether a row without images fails; otherwise its text alone is answered."""

    def __init__(self, serving: Any, system_prompt: str, save_interval: int = SAVE_INTERVAL):
        self.serving = serving
        self.system_prompt = system_prompt
        self.save_interval = save_interval

    def _fill(
        self,
        storage: DataFlowStorage,
        rows: list[dict],
        conversations: list[Any],
        image_key: str | None,
        video_key: str | None,
        output_key: str,
    ) -> str:
        if any(value_of(row, video_key, ()) for row in rows):
            raise ValueError(f"{video_key}: questions can be about images only, not about videos")
        images = [listed(value_of(row, image_key, IMAGES)) for row in rows]
        column = Column(storage, rows, output_key, list(range(len(rows))), "text", self.save_interval)
        with column.written():
            bare = sum(not given for given in images)
            if image_key and 0 < bare < len(rows) and not self.need_pictures:
                get_logger().warning("%d rows have no image in %r: their text alone is answered", bare, image_key)
            more = storage, column.tell, self.need_pictures
            fill_texts(self.serving, conversations, images, self.system_prompt, *more)
        return output_key


class PromptedVQAGenerator(VQAOperator):
    """Args: prompt_template: its text takes the place of each conversation's first turn; save_interval: rows between
    two tables, besides the last. A row without images is answered from its text alone."""

    need_pictures = False

    def __init__(
        self,
        serving: Any,
        system_prompt: str = HELPFUL,
        prompt_template: Any = None,
        *,
        save_interval: int = SAVE_INTERVAL,
    ):
        super().__init__(serving, system_prompt, save_interval)
        self.prompt_template = prompt_template

    def run(
        self,
        storage: DataFlowStorage,
        input_conversation_key: str = "conversation",
        input_prompt_key: str | None = None,
        input_image_key: str | None = None,
        input_video_key: str | None = None,
        output_answer_key: str = "answer",
    ) -> str:
        """Write the table with one answer per row; returns the name of its column."""
        if not output_answer_key:
            raise ValueError("output_answer_key must be provided.")
        rows = storage.read("dict")
        if input_prompt_key and any(input_prompt_key in row for row in rows):
            conversations = [row.get(input_prompt_key) or "" for row in rows]
        else:
            conversations = [self._injected(value_of(row, input_conversation_key, CONVERSATIONS)) for row in rows]
        return self._fill(storage, rows, conversations, input_image_key, input_video_key, output_answer_key)

    def _injected(self, conversation: Any) -> Any:
        if self.prompt_template is None or not isinstance(conversation, list) or not conversation:
            return conversation or ""
        first = conversation[0]
        if not isinstance(first, dict):
            return conversation
        name = "content" if "content" in first else "value"
        return [{**first, name: self.prompt_template.build_prompt()}, *conversation[1:]]
