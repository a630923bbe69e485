"""The embedded VLM in this process, through transformers: for the demo and for checks. `fastgen caption` serves VLMs
with vLLM."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from fastgen.config.model_cards import TINY_VLM

SAYS_NOTHING = {
    "torchao": "Failed to load ",  # kernels for GPUs, which are not used here
    "torch.utils._pytree": "register_constant() on Enum subclasses is deprecated",  # between torchao and PyTorch
}
"""Logger -> text of a message that transformers logs when it is imported, and that tells a user nothing."""


def _says_more_than(words: str, record: logging.LogRecord) -> bool:
    return words not in record.getMessage()


class Captioner:
    """Answers by greedy decoding, in float32 on the CPU."""

    def __init__(self, folder: Path = TINY_VLM):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        for name, words in SAYS_NOTHING.items():
            logging.getLogger(name).addFilter(partial(_says_more_than, words))
        from transformers import AutoProcessor, Idefics3ForConditionalGeneration
        from transformers.utils import logging as transformers_logging

        level = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        try:
            self.model = Idefics3ForConditionalGeneration.from_pretrained(folder, local_files_only=True).eval()
            self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        finally:
            transformers_logging.set_verbosity(level)

    def ask(
        self, picture: Image.Image, question: str = "Describe the image.", system: str = "", most: int = 160
    ) -> str:
        """The answer to a question about an image, up to a number of tokens."""
        return ask(self.model, self.processor, picture, question, system, most)


def messages(system: str, asked: str, picture_first: bool = True) -> list[dict]:
    """A chat with one question, with the image before or after its text."""
    parts = [{"type": "image"}, {"type": "text", "text": asked}]
    user = {"role": "user", "content": parts if picture_first else parts[::-1]}
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, user] if system else [user]


def ask(model: Any, processor: Any, picture: Image.Image, asked: str, system: str = "", most: int = 160) -> str:
    import torch

    prompt = processor.apply_chat_template(messages(system, asked), add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[prompt], images=[[picture.convert("RGB")]], return_tensors="pt").to(model.device)
    with torch.inference_mode():
        made = model.generate(**inputs, max_new_tokens=most, do_sample=False)
    return processor.tokenizer.decode(made[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
