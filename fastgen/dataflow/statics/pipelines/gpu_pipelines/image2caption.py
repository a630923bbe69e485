"""Captions by a VLM on this machine's GPUs, on a vLLM server that it starts and ends; --model_name tiny needs no
GPU."""

import argparse

from fastgen.dataflow.core import LLMServingABC
from fastgen.dataflow.operators.core_vision import PromptedVQAGenerator
from fastgen.dataflow.serving.local_model_vlm_serving import LocalModelVLMServing_vllm
from fastgen.dataflow.statics import example
from fastgen.dataflow.utils.storage import FileStorage

SYSTEM = (
    "You are a image caption generator. Your task is to generate a concise and informative caption for the "
    "given image content."
)


class ImageCaptioningPipeline:
    def __init__(
        self,
        llm_serving: LLMServingABC | None = None,
        model_name="Qwen/Qwen2.5-VL-3B-Instruct",
        max_tokens=256,
        first_entry_file_name=None,
        cache_path="./cache_local",
    ):
        self.storage = FileStorage(
            first_entry_file_name=first_entry_file_name or example("image_caption/sample_data.json"),
            cache_path=cache_path,
            file_name_prefix="caption",
            cache_type="json",
        )
        self.serving = llm_serving or LocalModelVLMServing_vllm(
            hf_model_name_or_path=model_name,  # hub id or folder
            hf_local_dir="./ckpt",
            vllm_temperature=0.7,
            vllm_top_p=0.9,
            vllm_max_tokens=max_tokens,
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
        description="Captions on this machine", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model_name", default="Qwen/Qwen2.5-VL-3B-Instruct", help="hub id, local folder, or tiny")
    parser.add_argument("--max_tokens", type=int, default=256, help="of a caption, at most; one that needs more fails")
    parser.add_argument(
        "--first_entry_file_name", help="rows: .json, .jsonl, .csv or .parquet; without it, bundled ones"
    )
    parser.add_argument("--cache_path", default="./cache_local", help="folder for the table")
    pipeline = ImageCaptioningPipeline(**vars(parser.parse_args(arguments)))
    pipeline.forward()
    return 3 if pipeline.serving.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
