"""Edits with FLUX.1-Kontext on this machine, as DataFlow-MM's pipeline has it."""

from dataflow.io import ImageIO
from dataflow.operators.core_vision import PromptedImageEditGenerator
from dataflow.serving.local_image_gen_serving import LocalImageGenServing
from dataflow.utils.storage import FileStorage

MODEL = "black-forest-labs/FLUX.1-Kontext-dev"


class Pipeline:
    def __init__(self):
        self.storage = FileStorage(
            first_entry_file_name="example_data/image_gen/image_edit/prompts_local.jsonl",
            cache_path="./cache_local/image_edit_local",
            file_name_prefix="dataflow_cache_step",
            cache_type="jsonl",
        )
        self.serving = LocalImageGenServing(
            image_io=ImageIO(save_path="./cache_local/image_edit_local"),
            Image_gen_task="imageedit",
            batch_size=4,
            hf_model_name_or_path=MODEL,
            hf_cache_dir="./cache_local",
            hf_local_dir="./ckpt/models/",
            diffuser_model_name="FLUX-Kontext",
            diffuser_num_inference_steps=2,
            diffuser_guidance_scale=3.5,
            diffuser_image_height=64,
            diffuser_image_width=64,
        )
        self.editor = PromptedImageEditGenerator(image_edit_serving=self.serving, save_interval=10)

    def forward(self):
        self.editor.run(
            storage=self.storage.step(),
            input_image_key="images",
            input_conversation_key="conversations",
            output_image_key="output_image",
        )


if __name__ == "__main__":
    Pipeline().forward()
