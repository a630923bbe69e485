"""Images of a table -> texts, with a prompt that contains values from each row."""

from __future__ import annotations

from typing import Any

from fastgen.dataflow.operators.core_vision.generate.column import SAVE_INTERVAL
from fastgen.dataflow.operators.core_vision.generate.prompted_vqa_generator import VQAOperator
from fastgen.dataflow.operators.core_vision.generate.rows import cell_of
from fastgen.dataflow.serving.texts import HELPFUL
from fastgen.dataflow.utils.storage import DataFlowStorage


class PromptTemplatedVQAGenerator(VQAOperator):
    """Args: prompt_template: a `NamedPlaceholderPromptTemplate`, or what has its `build_prompt`; save_interval: rows
    between two tables, besides the last."""

    def __init__(
        self,
        serving: Any,
        prompt_template: Any,
        system_prompt: str = HELPFUL,
        *,
        save_interval: int = SAVE_INTERVAL,
    ):
        super().__init__(serving, system_prompt, save_interval)
        self.prompt_template = prompt_template

    def run(
        self,
        storage: DataFlowStorage,
        input_image_key: str = "image",
        input_video_key: str = "video",
        output_answer_key: str = "answer",
        **input_keys: str,
    ) -> str:
        """Write the table with one answer per row; returns the name of its column.

        Args:
            input_keys: the column for each placeholder of the template, at least one.
        """
        if not input_keys:
            raise ValueError("at least one placeholder of the template needs a column: run(..., placeholder='column')")
        rows = storage.read("dict")
        names = set(input_keys)
        prompts = [
            self.prompt_template.build_prompt(
                names, **{name: cell_of(row, column) for name, column in input_keys.items()}
            )
            for row in rows
        ]
        return self._fill(storage, rows, prompts, input_image_key, input_video_key, output_answer_key)
