"""The operators for pictures, under the name that most pipelines import."""

from fastgen.dataflow.operators.core_vision.generate import (
    BatchVQAGenerator,
    FixPromptedVQAGenerator,
    PromptedImageEditGenerator,
    PromptedImageGenerator,
    PromptedVQAGenerator,
    PromptTemplatedVQAGenerator,
    Text2ImageGenerator,
)

__all__ = [
    "BatchVQAGenerator", "FixPromptedVQAGenerator", "PromptTemplatedVQAGenerator", "PromptedImageEditGenerator",
    "PromptedImageGenerator", "PromptedVQAGenerator", "Text2ImageGenerator",
]  # fmt: skip
