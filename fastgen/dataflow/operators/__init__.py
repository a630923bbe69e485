"""Operators: each reads a table, has a serving fill one column, and writes the next table."""

from fastgen.dataflow.operators.core_vision import (
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
