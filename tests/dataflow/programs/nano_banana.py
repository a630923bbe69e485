"""Edits by a model that draws in its chats, behind a gateway, as DataFlow-MM's page of operators has it."""

from dataflow.io import ImageIO
from dataflow.operators.core_vision import PromptedImageEditGenerator
from dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai
from dataflow.utils.storage import FileStorage

API_URL = "https://api.openai.com/v1"
ROWS = "rows.jsonl"

storage = FileStorage(
    first_entry_file_name=ROWS,
    cache_path="./cache_local",
    file_name_prefix="nano_banana",
    cache_type="jsonl",
)
serving = APIVLMServing_openai(
    api_url=API_URL,
    model_name="gemini-2.5-flash-image-preview",
    image_io=ImageIO(save_path="./cache_local/nano_banana"),
    send_request_stream=True,
)
editor = PromptedImageEditGenerator(pipe=serving)
editor.run(
    storage=storage.step(),
    input_image_key="images",
    input_conversation_key="conversations",
    output_image_key="edited_images",
)
