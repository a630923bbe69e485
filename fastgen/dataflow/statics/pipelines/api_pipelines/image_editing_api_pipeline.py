"""Edits images with a service in OpenAI's or Gemini's format. Run it after export DF_API_KEY=... (and DF_BASE_URL)."""

import argparse
import os

from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.operators.core_vision import PromptedImageEditGenerator
from fastgen.dataflow.serving.api_image_gen_serving import APIImageGenServing
from fastgen.dataflow.statics import example, program
from fastgen.dataflow.utils.storage import FileStorage


class ImageEditingAPIPipeline:
    def __init__(
        self,
        api_format: str = "gemini",
        model_name: str = "gemini-3-pro-image-preview",
        batch_size: int = 4,
        first_entry_file_name: str | None = None,
        cache_path: str = "./cache_local/image_edit_api",
    ):
        api_key = os.environ.get("DF_API_KEY")
        if api_key is None:
            raise ValueError("API key is required. Please set it via environment variable DF_API_KEY")
        self.storage = FileStorage(
            first_entry_file_name=first_entry_file_name or example("image_gen/image_edit/prompts_api.jsonl"),
            cache_path=cache_path,
            file_name_prefix="dataflow_cache_step",
            cache_type="jsonl",
        )
        self.serving = APIImageGenServing(
            api_url=os.environ.get("DF_BASE_URL"),  # without it, the vendor's own
            image_io=ImageIO(save_path=cache_path),
            Image_gen_task="imageedit",
            batch_size=batch_size,
            api_format=api_format,
            model_name=model_name,
            api_key=api_key,
        )
        self.generator = PromptedImageEditGenerator(image_edit_serving=self.serving, save_interval=10)

    def forward(self) -> None:
        self.generator.run(
            storage=self.storage.step(),
            input_image_key="images",
            input_conversation_key="conversations",
            output_image_key="output_image",
        )


@program
def main(arguments: list[str] | None = None) -> object:
    parser = argparse.ArgumentParser(
        description="Edit images with a service", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--api_format", choices=["openai", "gemini"], default="gemini", help="format of the service")
    parser.add_argument("--model_name", default="gemini-3-pro-image-preview", help="model to use")
    parser.add_argument("--batch_size", type=int, default=4, help="maximum number of requests in flight")
    parser.add_argument(
        "--first_entry_file_name", help="rows: .jsonl, .json, .csv or .parquet; default: bundled examples"
    )
    parser.add_argument(
        "--cache_path", default="./cache_local/image_edit_api", help="folder for the table and the images"
    )
    given = parser.parse_args(arguments)
    if not os.environ.get("DF_API_KEY"):
        parser.error("Environment variable DF_API_KEY is not set. Please use export DF_API_KEY=your_api_key to set it")
    pipeline = ImageEditingAPIPipeline(**vars(given))
    pipeline.forward()
    return pipeline.serving


if __name__ == "__main__":
    raise SystemExit(main())
