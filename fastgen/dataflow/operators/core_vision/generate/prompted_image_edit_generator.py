"""Images and instructions of a table -> edited images. A row that already has its output is kept as it is."""

from __future__ import annotations

import os
from typing import Any

from fastgen.dataflow.core import OperatorABC
from fastgen.dataflow.operators.core_vision.generate.column import Column, fill_pictures
from fastgen.dataflow.operators.core_vision.generate.kept import Kept
from fastgen.dataflow.operators.core_vision.generate.rows import (
    CONVERSATIONS,
    IMAGES,
    done,
    extras,
    listed,
    located,
    user_turns,
    value_of,
)
from fastgen.dataflow.utils.storage import DataFlowStorage


class PromptedImageEditGenerator(OperatorABC):
    """Args: image_edit_serving (or pipe): makes the edits; save_interval: rows between two intermediate tables."""

    def __init__(self, image_edit_serving: Any = None, save_interval: int = 50, *, pipe: Any = None):
        self.image_edit_serving = pipe if image_edit_serving is None else image_edit_serving
        if self.image_edit_serving is None:
            raise ValueError("image_edit_serving is required")
        self.save_interval = save_interval

    def run(
        self,
        storage: DataFlowStorage,
        input_image_key: str = "images",
        input_conversation_key: str = "conversation",
        output_image_key: str = "edited_images",
        save_image_with_idx: bool = True,
    ) -> None:
        """Write the table with the paths of each row's edits, [] if none could be made. Several user turns are edits
        one after the other.

        Args:
            save_image_with_idx: name images by row; else by instruction.
        """
        rows = storage.read("dict")
        folder = getattr(storage, "folder", None) or os.getcwd()
        inputs, keys, owners = [], [], []
        kept = Kept(storage, output_image_key, (input_conversation_key, input_image_key, *CONVERSATIONS, *IMAGES))
        for place, row in enumerate(rows):
            if done(row.get(output_image_key)):
                continue
            if cell := kept.take(row):
                rows[place] = {**row, output_image_key: cell}
                continue
            turns = [text for _, text in user_turns(value_of(row, input_conversation_key, CONVERSATIONS))]
            input = {
                "image_path": [located(one, folder) for one in listed(value_of(row, input_image_key, IMAGES))],
                "prompt": turns[-1] if turns else "",
                **({"idx": place} if save_image_with_idx else {}),
                **extras(row, folder),
            }
            if len(turns) > 1:
                input["conversations"] = [{"role": "user", "content": text} for text in turns]
            inputs.append(input)
            keys.append(f"sample_{place}" if save_image_with_idx else input["prompt"])
            owners.append(place)
        kept.say()
        column = Column(storage, rows, output_image_key, owners, "paths", self.save_interval)
        with column.written():
            fill_pictures(self.image_edit_serving, "imageedit", inputs, keys, column.tell)
