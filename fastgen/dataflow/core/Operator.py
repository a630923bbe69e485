"""The base class of operators, and operators by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class OperatorABC(ABC):
    """One step of a pipeline: reads a table from a storage and writes it with one more column."""

    @abstractmethod
    def run(self, *args: Any, **kwargs: Any) -> Any: ...

    @classmethod
    def get_desc(cls, lang: str = "en") -> str:
        """What it does, in one line."""
        return (cls.run.__doc__ or cls.__doc__ or cls.__name__).strip().splitlines()[0]


def get_operator(operator_name: str, args: Any) -> OperatorABC:
    """A new operator with a registered name, made with `args`. Raises KeyError."""
    from fastgen.dataflow.utils.registry import OPERATOR_REGISTRY

    return OPERATOR_REGISTRY.get(operator_name)(args)
