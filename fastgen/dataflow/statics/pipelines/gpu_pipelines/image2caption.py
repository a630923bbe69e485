"""Captions from a VLM on this machine's GPUs, on a vLLM server that it starts and ends; without a GPU by the embedded
VLM."""

import argparse

from fastgen.dataflow.core import LLMServingABC
from fastgen.dataflow.operators.core_vision import PromptedVQAGenerator
from fastgen.dataflow.serving.local_model_vlm_serving import LocalModelVLMServing_vllm
from fastgen.dataflow.statics import default_model, example, program
from fastgen.dataflow.utils.storage import FileStorage

SYSTEM = (
    "You are a image caption generator. Your task is to generate a concise and informative caption for the "
    "given image content."
)

MODEL = "Qwen/Qwen2.5-VL-3B-Instruct"


class ImageCaptioningPipeline:
    def __init__(
        self,
        llm_serving: LLMServingABC | None = None,
        first_entry_file: str | None = None,
        cache_path: str = "./cache_local",
        file_name_prefix: str = "caption",
        cache_type: str = "json",
        model_name: str | None = None,
        max_tokens: int = 256,
    ):
        self.storage = FileStorage(
            first_entry_file_name=first_entry_file or example("image_caption/sample_data.json"),
            cache_path=cache_path,
            file_name_prefix=file_name_prefix,
            cache_type=cache_type,
        )
        self.serving = llm_serving or LocalModelVLMServing_vllm(
            hf_model_name_or_path=model_name or default_model(MODEL),
            hf_local_dir="./ckpt",
            vllm_temperature=0.7,
            vllm_top_p=0.9,
            vllm_max_tokens=max_tokens,
        )
        self.generator = PromptedVQAGenerator(serving=self.serving, system_prompt=SYSTEM)

    def forward(self) -> None:
        self.generator.run(
            storage=self.storage.step(),
            input_conversation_key="conversation",
            input_image_key="image",
            output_answer_key="caption",
        )


@program
def main(arguments: list[str] | None = None) -> object:
    parser = argparse.ArgumentParser(
        description="Captions on this machine", formatter_class=argparse.ArgumentDefaultsHelpFormatter
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
    parser.add_argument("--model_name", help=f"hub id, local folder, or tiny; default: {MODEL}, or tiny without a GPU")
    parser.add_argument(
        "--max_tokens", type=int, default=256, help="maximum tokens of a caption; one that needs more fails"
    )
    pipeline = ImageCaptioningPipeline(**vars(parser.parse_args(arguments)))
    pipeline.forward()
    return pipeline.serving


if __name__ == "__main__":
    raise SystemExit(main())
