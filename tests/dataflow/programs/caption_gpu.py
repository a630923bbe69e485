"""Captions, then answers, with a VLM that vLLM serves on this machine, as DataFlow-MM's pipelines have it."""

from dataflow.operators.core_vision import PromptedVQAGenerator
from dataflow.serving.local_model_vlm_serving import LocalModelVLMServing_vllm
from dataflow.utils.storage import FileStorage

MODEL = "Qwen/Qwen2.5-VL-3B-Instruct"


class Pipeline:
    def __init__(self):
        self.serving = LocalModelVLMServing_vllm(
            hf_model_name_or_path=MODEL,
            hf_cache_dir="~/.cache/huggingface",
            hf_local_dir="./ckpt",
            vllm_tensor_parallel_size=1,
            vllm_temperature=0.7,
            vllm_top_p=0.9,
            vllm_max_tokens=64,
        )
        self.generator = PromptedVQAGenerator(serving=self.serving, system_prompt="You are a image caption generator.")

    def forward(self, rows, prefix, column):
        storage = FileStorage(
            first_entry_file_name=rows, cache_path="./cache_local", file_name_prefix=prefix, cache_type="json"
        )
        self.generator.run(
            storage=storage.step(),
            input_conversation_key="conversation",
            input_image_key="image",
            output_answer_key=column,
        )


if __name__ == "__main__":
    pipeline = Pipeline()
    pipeline.forward("./example_data/image_caption/sample_data.json", "caption", "caption")
    pipeline.forward("./example_data/image_vqa/sample_data.json", "qa", "vqa")
