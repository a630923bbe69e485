"""The base class of servings, for user code that derives from it or names it in type hints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class LLMServingABC(ABC):
    """Something that answers a list of inputs."""

    @abstractmethod
    def generate_from_input(self, user_inputs: list[Any], *args: Any, **kwargs: Any) -> Any: ...

    def start_serving(self) -> None:  # noqa: B027
        """Nothing to do: the first call starts what is needed."""

    def cleanup(self) -> None:  # noqa: B027
        """End what earlier calls left open."""
