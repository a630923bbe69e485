"""Captions with a server in OpenAI's format, as DataFlow-MM's page has it: no flags, the key in the program."""

import os

os.environ["DF_API_KEY"] = "sk-xxx"

from dataflow.core import LLMServingABC
from dataflow.operators.core_vision import PromptedVQAGenerator
from dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai
from dataflow.utils.storage import FileStorage

API_URL = "https://api.openai.com/v1"
ROWS = "./example_data/image_caption/sample_data.json"
CACHE_TYPE = "json"


class Pipeline:
    def __init__(self, llm_serving: LLMServingABC = None):
        self.storage = FileStorage(
            first_entry_file_name=ROWS, cache_path="./cache_local", file_name_prefix="caption", cache_type=CACHE_TYPE
        )
        self.serving = llm_serving or APIVLMServing_openai(
            api_url=API_URL,
            key_name_of_api_key="DF_API_KEY",
            model_name="gpt-5-nano-2025-08-07",
            image_io=None,
            send_request_stream=False,
            max_workers=10,
            timeout=1800,
        )
        self.generator = PromptedVQAGenerator(
            serving=self.serving, system_prompt="You are a image caption generator. Write one short sentence."
        )

    def forward(self):
        self.generator.run(
            storage=self.storage.step(),
            input_conversation_key="conversation",
            input_image_key="image",
            output_answer_key="caption",
        )


if __name__ == "__main__":
    Pipeline().forward()
