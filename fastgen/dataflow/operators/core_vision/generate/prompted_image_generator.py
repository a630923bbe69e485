"""Prompts of a table -> images. Every user turn is a prompt. A row that already has its output is kept as it is."""

from __future__ import annotations

from typing import Any

from fastgen.dataflow.core import OperatorABC
from fastgen.dataflow.operators.core_vision.generate.column import Column, fill_pictures
from fastgen.dataflow.operators.core_vision.generate.kept import Kept
from fastgen.dataflow.operators.core_vision.generate.rows import CONVERSATIONS, done, extras, user_turns, value_of
from fastgen.dataflow.utils.storage import DataFlowStorage


class PromptedImageGenerator(OperatorABC):
    """Args: t2i_serving (or pipe): makes the images; save_interval: prompts between two intermediate tables."""

    def __init__(self, t2i_serving: Any = None, save_interval: int = 50, *, pipe: Any = None):
        self.t2i_serving = pipe if t2i_serving is None else t2i_serving
        if self.t2i_serving is None:
            raise ValueError("t2i_serving is required")
        self.save_interval = save_interval

    def run(
        self,
        storage: DataFlowStorage,
        input_conversation_key: str = "conversation",
        output_image_key: str = "images",
        save_image_with_idx: bool = True,
    ) -> None:
        """Write the table with the paths of each row's images, [] if none could be made.

        Args:
            save_image_with_idx: name images by row and turn; else by prompt.
        """
        rows = storage.read("dict")
        inputs, keys, owners = [], [], []
        kept = Kept(storage, output_image_key, (input_conversation_key, *CONVERSATIONS))
        for place, row in enumerate(rows):
            if done(row.get(output_image_key)):
                continue
            if cell := kept.take(row):
                rows[place] = {**row, output_image_key: cell}
                continue
            more = extras(row, "")
            # A row without a prompt is passed on, so that it fails with the right error.
            for turn, prompt in user_turns(value_of(row, input_conversation_key, CONVERSATIONS)) or [(0, "")]:
                key = f"sample{place}_condition{turn}"
                keys.append(key if save_image_with_idx else prompt)
                inputs.append({"text_prompt": prompt, **({"sample_id": key} if save_image_with_idx else {}), **more})
                owners.append(place)
        kept.say()
        column = Column(storage, rows, output_image_key, owners, "paths", self.save_interval)
        with column.written():
            fill_pictures(self.t2i_serving, "text2image", inputs, keys, column.tell)


class Text2ImageGenerator(PromptedImageGenerator):
    """The older name, with the column name of that time."""

    def __init__(self, pipe: Any = None, save_interval: int = 50, *, t2i_serving: Any = None):
        super().__init__(t2i_serving, save_interval, pipe=pipe)

    def run(
        self,
        storage: DataFlowStorage,
        input_conversation_key: str = "conversations",
        output_image_key: str = "images",
        save_image_with_idx: bool = True,
    ) -> None:
        super().run(storage, input_conversation_key, output_image_key, save_image_with_idx)
