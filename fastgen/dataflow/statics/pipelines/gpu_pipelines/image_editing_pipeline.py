"""Edits of pictures by a FLUX model on this machine's GPUs; without a GPU by the
embedded model."""

import argparse

from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.operators.core_vision import PromptedImageEditGenerator
from fastgen.dataflow.serving.local_image_gen_serving import LocalImageGenServing
from fastgen.dataflow.statics import default_model, example, program
from fastgen.dataflow.utils.storage import FileStorage

MODEL = "black-forest-labs/FLUX.1-Kontext-dev"


class ImageEditingPipeline:
    def __init__(
        self,
        model_name: str | None = None,
        batch_size: int = 4,
        first_entry_file_name: str | None = None,
        cache_path: str = "./cache_local/image_edit_local",
        steps: int = 28,
        height: int = 1024,
        width: int = 1024,
    ):
        self.storage = FileStorage(
            first_entry_file_name=first_entry_file_name or example("image_gen/image_edit/prompts_local.jsonl"),
            cache_path=cache_path,
            file_name_prefix="dataflow_cache_step",
            cache_type="jsonl",
        )
        self.serving = LocalImageGenServing(
            image_io=ImageIO(save_path=cache_path),
            hf_model_name_or_path=model_name or default_model(MODEL),
            Image_gen_task="imageedit",
            diffuser_model_name="FLUX-Kontext",
            diffuser_guidance_scale=3.5,
            batch_size=batch_size,
            diffuser_num_inference_steps=steps,
            diffuser_image_height=height,
            diffuser_image_width=width,
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
        description="Edit images on this machine", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model_name", help=f"hub id, local folder, or tiny; default: {MODEL}, or tiny without a GPU")
    parser.add_argument(
        "--batch_size", type=int, default=4, help="images that go through the model together, on each GPU"
    )
    parser.add_argument(
        "--first_entry_file_name", help="rows: .jsonl, .json, .csv or .parquet; default: bundled examples"
    )
    parser.add_argument(
        "--cache_path", default="./cache_local/image_edit_local", help="folder for the table and the images"
    )
    parser.add_argument("--steps", type=int, default=28, help="denoising steps")
    parser.add_argument(
        "--height", type=int, default=1024, help="of the images; 1024x1024 means that each input decides"
    )
    parser.add_argument(
        "--width", type=int, default=1024, help="of the images; 1024x1024 means that each input decides"
    )
    pipeline = ImageEditingPipeline(**vars(parser.parse_args(arguments)))
    pipeline.forward()
    return pipeline.serving


if __name__ == "__main__":
    raise SystemExit(main())
