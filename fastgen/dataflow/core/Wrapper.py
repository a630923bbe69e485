"""The base class of wrappers, which run operators in another way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class WrapperABC(ABC):
    @abstractmethod
    def run(self, *args: Any, **kwargs: Any) -> Any: ...
