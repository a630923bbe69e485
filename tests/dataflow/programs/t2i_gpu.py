"""Images from prompts with FLUX on this machine, as DataFlow-MM's page of operators has it."""

from dataflow.io import ImageIO
from dataflow.operators import Text2ImageGenerator
from dataflow.serving.local_image_gen_serving import LocalImageGenServing
from dataflow.utils.storage import FileStorage

MODEL = "black-forest-labs/FLUX.1-dev"

storage = FileStorage(
    first_entry_file_name="example_data/image_gen/text2image/prompts.jsonl",
    cache_path="./cache_local/text2image_local",
    file_name_prefix="dataflow_cache_step",
    cache_type="jsonl",
)
serving = LocalImageGenServing(
    image_io=ImageIO(save_path="./cache_local/text2image_local"),
    batch_size=4,
    hf_model_name_or_path=MODEL,
    hf_cache_dir="./cache_local",
    hf_local_dir="./ckpt/models/",
    diffuser_num_inference_steps=2,
    diffuser_image_height=64,
    diffuser_image_width=96,
)
generator = Text2ImageGenerator(pipe=serving)
generator.run(storage=storage.step(), input_conversation_key="conversations", output_image_key="images")
