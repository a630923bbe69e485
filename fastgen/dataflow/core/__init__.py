"""The base classes that user code derives from or uses in type hints, under the usual module names. Does not know
tasks."""

from fastgen.dataflow.core.LLMServing import LLMServingABC
from fastgen.dataflow.core.Operator import OperatorABC, get_operator
from fastgen.dataflow.core.VLMServing import VLMServingABC
from fastgen.dataflow.core.Wrapper import WrapperABC

__all__ = ["LLMServingABC", "OperatorABC", "VLMServingABC", "WrapperABC", "get_operator"]
