"""Images of a table -> texts, all with the same prompt."""

from __future__ import annotations

from typing import Any

from fastgen.dataflow.operators.core_vision.generate.column import SAVE_INTERVAL
from fastgen.dataflow.operators.core_vision.generate.prompted_vqa_generator import VQAOperator
from fastgen.dataflow.serving.texts import HELPFUL
from fastgen.dataflow.utils.storage import DataFlowStorage


class FixPromptedVQAGenerator(VQAOperator):
    """Args: user_prompt: what is asked about each row's pictures; save_interval: rows between two tables, besides the
    last."""

    def __init__(
        self,
        serving: Any,
        system_prompt: str = HELPFUL,
        user_prompt: str = "Please caption the media in detail.",
        *,
        save_interval: int = SAVE_INTERVAL,
    ):
        super().__init__(serving, system_prompt, save_interval)
        self.user_prompt = user_prompt

    def run(
        self,
        storage: DataFlowStorage,
        input_image_key: str = "image",
        input_video_key: str = "video",
        output_answer_key: str = "answer",
    ) -> str:
        """Write the table with one answer per row; returns the name of its column."""
        rows = storage.read("dict")
        prompts = [self.user_prompt] * len(rows)
        return self._fill(storage, rows, prompts, input_image_key, input_video_key, output_answer_key)
