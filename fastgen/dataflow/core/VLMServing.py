"""The base class of servings for images."""

from __future__ import annotations

from fastgen.dataflow.core.LLMServing import LLMServingABC


class VLMServingABC(LLMServingABC):
    """Something that answers with texts about images."""
