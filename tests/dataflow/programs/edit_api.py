"""Edits with a service, as DataFlow-MM's page has it: one image or several, one turn or several."""

import argparse
import os

from dataflow.io import ImageIO
from dataflow.operators.core_vision import PromptedImageEditGenerator
from dataflow.serving.api_image_gen_serving import APIImageGenServing
from dataflow.utils.storage import FileStorage


class Pipeline:
    def __init__(self, api_format, model_name, batch_size, first_entry_file_name, cache_path):
        self.storage = FileStorage(
            first_entry_file_name=first_entry_file_name,
            cache_path=cache_path,
            file_name_prefix="dataflow_cache_step",
            cache_type="jsonl",
        )
        self.serving = APIImageGenServing(
            api_url=os.environ.get("DF_BASE_URL"),
            image_io=ImageIO(save_path=cache_path),
            Image_gen_task="imageedit",
            batch_size=batch_size,
            api_format=api_format,
            model_name=model_name,
            api_key=os.environ.get("DF_API_KEY"),
        )
        self.editor = PromptedImageEditGenerator(image_edit_serving=self.serving, save_interval=10)

    def forward(self):
        self.editor.run(
            storage=self.storage.step(),
            input_image_key="images",
            input_conversation_key="conversations",
            output_image_key="output_image",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--api_format", choices=["openai", "gemini"], default="gemini")
    parser.add_argument("--model_name", default="gemini-3-pro-image-preview")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--first_entry_file_name", default="example_data/image_gen/image_edit/prompts_api.jsonl")
    parser.add_argument("--cache_path", default="./cache_local/image_edit_api")
    Pipeline(**vars(parser.parse_args())).forward()
