"""Captions by any server of OpenAI's chat format: export DF_API_KEY (and DF_BASE_URL), then run it."""

import argparse
import os

from fastgen.dataflow.core import LLMServingABC
from fastgen.dataflow.operators.core_vision import PromptedVQAGenerator
from fastgen.dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai
from fastgen.dataflow.statics import example
from fastgen.dataflow.utils.storage import FileStorage

SYSTEM = (
    "You are a image caption generator. Your task is to generate a concise and informative caption for the "
    "given image content."
)


class ImageCaptionPipeline:
    def __init__(
        self,
        llm_serving: LLMServingABC | None = None,
        model_name="gpt-5-nano-2025-08-07",
        max_workers=10,
        first_entry_file_name=None,
        cache_path="./cache_local",
    ):
        self.storage = FileStorage(
            first_entry_file_name=first_entry_file_name or example("image_caption/sample_data.json"),
            cache_path=cache_path,
            file_name_prefix="caption",
            cache_type="json",
        )
        self.serving = llm_serving or APIVLMServing_openai(
            api_url=os.environ.get("DF_BASE_URL") or "https://api.openai.com/v1",
            key_name_of_api_key="DF_API_KEY",
            model_name=model_name,
            max_workers=max_workers,
            timeout=1800,
        )
        self.generator = PromptedVQAGenerator(serving=self.serving, system_prompt=SYSTEM)

    def forward(self):
        self.generator.run(
            storage=self.storage.step(),
            input_conversation_key="conversation",
            input_image_key="image",
            output_answer_key="caption",
        )


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description="Captions by a server", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model_name", default="gpt-5-nano-2025-08-07", help="model to ask for")
    parser.add_argument("--max_workers", type=int, default=10, help="requests at the same time, at most")
    parser.add_argument(
        "--first_entry_file_name", help="rows: .json, .jsonl, .csv or .parquet; without it, bundled ones"
    )
    parser.add_argument("--cache_path", default="./cache_local", help="folder for the table")
    given = parser.parse_args(arguments)
    if not os.environ.get("DF_API_KEY"):
        parser.error("Environment variable DF_API_KEY is not set. Please use export DF_API_KEY=your_api_key to set it")
    pipeline = ImageCaptionPipeline(**vars(given))
    pipeline.forward()
    return 3 if pipeline.serving.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
