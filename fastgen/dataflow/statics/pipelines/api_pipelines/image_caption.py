"""Captions from any server in OpenAI's chat format. Run it after export DF_API_KEY=... (and DF_BASE_URL)."""

import argparse
import os

from fastgen.dataflow.core import LLMServingABC
from fastgen.dataflow.operators.core_vision import PromptedVQAGenerator
from fastgen.dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai
from fastgen.dataflow.statics import example, program
from fastgen.dataflow.utils.storage import FileStorage

SYSTEM = (
    "You are a image caption generator. Your task is to generate a concise and informative caption for the "
    "given image content."
)


class ImageCaptionPipeline:
    def __init__(
        self,
        llm_serving: LLMServingABC | None = None,
        first_entry_file: str | None = None,
        cache_path: str = "./cache_local",
        file_name_prefix: str = "caption",
        cache_type: str = "json",
        model_name: str = "gpt-5-nano-2025-08-07",
        max_workers: int = 10,
    ):
        self.storage = FileStorage(
            first_entry_file_name=first_entry_file or example("image_caption/sample_data.json"),
            cache_path=cache_path,
            file_name_prefix=file_name_prefix,
            cache_type=cache_type,
        )
        self.vlm_serving = llm_serving or APIVLMServing_openai(
            api_url=os.environ.get("DF_BASE_URL") or "https://api.openai.com/v1",
            key_name_of_api_key="DF_API_KEY",
            model_name=model_name,
            max_workers=max_workers,
            timeout=1800,
        )
        self.vqa_generator = PromptedVQAGenerator(serving=self.vlm_serving, system_prompt=SYSTEM)

    def forward(self) -> None:
        self.vqa_generator.run(
            storage=self.storage.step(),
            input_conversation_key="conversation",
            input_image_key="image",
            output_answer_key="caption",
        )


@program
def main(arguments: list[str] | None = None) -> object:
    parser = argparse.ArgumentParser(
        description="Captions by a server", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--images_file",
        "--first_entry_file_name",
        dest="first_entry_file",
        help="rows: .json, .jsonl, .csv or .parquet; default: bundled examples",
    )
    parser.add_argument("--cache_path", default="./cache_local", help="folder for the table")
    parser.add_argument("--file_name_prefix", default="caption", help="how the table's name begins")
    parser.add_argument(
        "--cache_type", default="json", choices=["json", "jsonl", "csv", "parquet"], help="format of the table"
    )
    parser.add_argument("--model_name", default="gpt-5-nano-2025-08-07", help="model to use")
    parser.add_argument("--max_workers", type=int, default=10, help="maximum number of requests in flight")
    given = parser.parse_args(arguments)
    if not os.environ.get("DF_API_KEY"):
        parser.error("Environment variable DF_API_KEY is not set. Please use export DF_API_KEY=your_api_key to set it")
    pipeline = ImageCaptionPipeline(**vars(given))
    pipeline.forward()
    return pipeline.vlm_serving


if __name__ == "__main__":
    raise SystemExit(main())
