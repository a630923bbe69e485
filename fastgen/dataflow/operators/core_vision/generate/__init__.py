"""One file per operator; `rows.py` has what they read from rows."""

from fastgen.dataflow.operators.core_vision.generate.batch_vqa_generator import BatchVQAGenerator
from fastgen.dataflow.operators.core_vision.generate.fix_prompted_vqa_generator import FixPromptedVQAGenerator
from fastgen.dataflow.operators.core_vision.generate.prompt_templated_vqa_generator import PromptTemplatedVQAGenerator
from fastgen.dataflow.operators.core_vision.generate.prompted_image_edit_generator import PromptedImageEditGenerator
from fastgen.dataflow.operators.core_vision.generate.prompted_image_generator import (
    PromptedImageGenerator,
    Text2ImageGenerator,
)
from fastgen.dataflow.operators.core_vision.generate.prompted_vqa_generator import PromptedVQAGenerator

__all__ = [
    "BatchVQAGenerator",
    "FixPromptedVQAGenerator",
    "PromptTemplatedVQAGenerator",
    "PromptedImageEditGenerator",
    "PromptedImageGenerator",
    "PromptedVQAGenerator",
    "Text2ImageGenerator",
]
