"""Many questions about the image of each row -> one list of answers per row, in the order of the questions."""

from __future__ import annotations

from typing import Any

from fastgen.dataflow.core import OperatorABC
from fastgen.dataflow.operators.core_vision.generate.column import SAVE_INTERVAL, Column, fill_texts
from fastgen.dataflow.operators.core_vision.generate.rows import IMAGES, listed, value_of
from fastgen.dataflow.serving.texts import HELPFUL
from fastgen.dataflow.utils.storage import DataFlowStorage


class BatchVQAGenerator(OperatorABC):
    """All questions of all rows are asked at the same time. Args: save_interval: questions between two tables, besides
    the last."""

    def __init__(self, serving: Any, system_prompt: str = HELPFUL, *, save_interval: int = SAVE_INTERVAL):
        self.serving = serving
        self.system_prompt = system_prompt
        self.save_interval = save_interval

    def run(self, storage: DataFlowStorage, input_prompts_key: str, input_image_key: str, output_key: str) -> str:
        """Write the table with the answers, "" if there is none; returns the name of their column."""
        rows = storage.read("dict")
        questions, images, owners = [], [], []
        for place, row in enumerate(rows):
            for question in listed(row.get(input_prompts_key)):
                questions.append(question)
                images.append(listed(value_of(row, input_image_key, IMAGES)))
                owners.append(place)
        rows = [row if listed(row.get(input_prompts_key)) else {**row, output_key: []} for row in rows]
        column = Column(storage, rows, output_key, owners, "texts", self.save_interval)
        with column.written():
            fill_texts(self.serving, questions, images, self.system_prompt, storage, column.tell)
        return output_key
