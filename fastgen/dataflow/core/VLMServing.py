"""The base class of servings for pictures."""

from __future__ import annotations

from fastgen.dataflow.core.LLMServing import LLMServingABC


class VLMServingABC(LLMServingABC):
    """Something that answers texts about pictures."""
