"""Pictures from prompts by a FLUX model on this machine's GPUs; without a GPU by the
embedded model."""

import argparse

from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.operators.core_vision import PromptedImageGenerator
from fastgen.dataflow.serving.local_image_gen_serving import LocalImageGenServing
from fastgen.dataflow.statics import default_model, example, program
from fastgen.dataflow.utils.storage import FileStorage

MODEL = "black-forest-labs/FLUX.1-dev"


class ImageGenerationPipeline:
    def __init__(
        self,
        model_name: str | None = None,
        batch_size: int = 4,
        first_entry_file_name: str | None = None,
        cache_path: str = "./cache_local/text2image_local",
        steps: int = 20,
        height: int = 512,
        width: int = 512,
    ):
        self.storage = FileStorage(
            first_entry_file_name=first_entry_file_name or example("image_gen/text2image/prompts.jsonl"),
            cache_path=cache_path,
            file_name_prefix="dataflow_cache_step",
            cache_type="jsonl",
        )
        self.serving = LocalImageGenServing(
            image_io=ImageIO(save_path=cache_path),
            hf_model_name_or_path=model_name or default_model(MODEL),
            Image_gen_task="text2image",
            diffuser_model_name="FLUX",
            batch_size=batch_size,
            diffuser_num_inference_steps=steps,
            diffuser_image_height=height,
            diffuser_image_width=width,
        )
        self.generator = PromptedImageGenerator(t2i_serving=self.serving, save_interval=10)

    def forward(self) -> None:
        self.generator.run(
            storage=self.storage.step(),
            input_conversation_key="conversations",
            output_image_key="images",
        )


@program
def main(arguments: list[str] | None = None) -> object:
    parser = argparse.ArgumentParser(
        description="Make images from prompts on this machine", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model_name", help=f"hub id, local folder, or tiny; default: {MODEL}, or tiny without a GPU")
    parser.add_argument(
        "--batch_size", type=int, default=4, help="images that go through the model together, on each GPU"
    )
    parser.add_argument(
        "--first_entry_file_name", help="rows: .jsonl, .json, .csv or .parquet; default: bundled examples"
    )
    parser.add_argument(
        "--cache_path", default="./cache_local/text2image_local", help="folder for the table and the images"
    )
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--height", type=int, default=512, help="of the images")
    parser.add_argument("--width", type=int, default=512, help="of the images")
    pipeline = ImageGenerationPipeline(**vars(parser.parse_args(arguments)))
    pipeline.forward()
    return pipeline.serving


if __name__ == "__main__":
    raise SystemExit(main())
