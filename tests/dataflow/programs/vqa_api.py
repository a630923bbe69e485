"""Questions about images in two steps: the first writes a question, the second answers it."""

from dataflow.operators.core_vision import PromptedVQAGenerator
from dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai
from dataflow.utils.storage import FileStorage

API_URL = "https://api.openai.com/v1"

storage = FileStorage(
    first_entry_file_name="./example_data/image_vqa/sample_data.json",
    cache_path="./cache_local",
    file_name_prefix="qa",
    cache_type="json",
)
serving = APIVLMServing_openai(
    api_url=API_URL,
    key_name_of_api_key="DF_API_KEY",
    model_name="gpt-5-nano-2025-08-07",
    image_io=None,
    send_request_stream=False,
    max_workers=10,
    timeout=1800,
)
ask = PromptedVQAGenerator(serving=serving, system_prompt="Ask one question about the image.")
ask.run(
    storage=storage.step(),
    input_conversation_key="conversation",
    input_image_key="image",
    output_answer_key="question",
)
answer = PromptedVQAGenerator(serving=serving, system_prompt="Answer the question about the image.")
answer.run(
    storage=storage.step(),
    input_prompt_key="question",
    input_image_key="image",
    output_answer_key="answer",
)
