"""Images from prompts with a service, as DataFlow-MM's page has it: five flags, the key in the environment."""

import argparse
import os

from dataflow import get_logger
from dataflow.io import ImageIO
from dataflow.operators.core_vision import PromptedImageGenerator
from dataflow.serving.api_image_gen_serving import APIImageGenServing
from dataflow.utils.storage import FileStorage

VENDORS = {"gemini": "https://generativelanguage.googleapis.com", "openai": "https://api.openai.com/v1"}


class Pipeline:
    def __init__(self, api_format, model_name, batch_size, first_entry_file_name, cache_path):
        key = os.environ.get("DF_API_KEY")
        if key is None:
            raise ValueError("API key is required. Please set it via environment variable DF_API_KEY")
        self.logger = get_logger()
        self.storage = FileStorage(
            first_entry_file_name=first_entry_file_name,
            cache_path=cache_path,
            file_name_prefix="dataflow_cache_step",
            cache_type="jsonl",
        )
        self.serving = APIImageGenServing(
            api_url=os.environ.get("DF_BASE_URL") or VENDORS[api_format],
            image_io=ImageIO(save_path=cache_path),
            Image_gen_task="text2image",
            batch_size=batch_size,
            api_format=api_format,
            model_name=model_name,
            api_key=key,
        )
        self.generator = PromptedImageGenerator(t2i_serving=self.serving, save_interval=10)

    def forward(self):
        self.generator.run(
            storage=self.storage.step(), input_conversation_key="conversations", output_image_key="images"
        )
        self.logger.info("done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--api_format", choices=["openai", "gemini"], default="gemini")
    parser.add_argument("--model_name", default="gemini-3-pro-image-preview")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--first_entry_file_name", default="example_data/image_gen/text2image/prompts.jsonl")
    parser.add_argument("--cache_path", default="./cache_local/text2image_api")
    Pipeline(**vars(parser.parse_args())).forward()
