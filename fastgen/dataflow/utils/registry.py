"""Classes by name: users' own operators register here, and those of this package are found here.

@OPERATOR_REGISTRY.register()
class MyOperator(OperatorABC): ...

OPERATOR_REGISTRY.get("MyOperator")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, TypeVar

Named = TypeVar("Named", bound=Callable)


class Registry:
    """Args: name: for messages; home: the module whose `__all__` is available without being registered."""

    def __init__(self, name: str, home: str = ""):
        self._name, self._home = name, home
        self._obj_map: dict[str, Any] = {}

    def register(self, obj: Named | None = None) -> Any:
        """Use it as a decorator, with or without brackets, or as a call. The first class with a name stays."""

        def add(one: Named) -> Named:
            self._obj_map.setdefault(one.__name__, one)
            return one

        return add if obj is None else add(obj)

    def get(self, name: str) -> Any:
        """Raises KeyError."""
        if name in self._obj_map:
            return self._obj_map[name]
        if name in self._at_home():
            return getattr(import_module(self._home), name)
        raise KeyError(f"{name}: no such name among the {self._name}; there are {', '.join(sorted(self.keys()))}")

    def keys(self) -> list[str]:
        return list(dict.fromkeys([*self._obj_map, *self._at_home()]))

    def get_obj_map(self) -> dict[str, Any]:
        return {name: self.get(name) for name in self.keys()}

    def __contains__(self, name: str) -> bool:
        return name in self.keys()

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self.get_obj_map().items())

    def __repr__(self) -> str:
        return f"Registry({self._name}: {', '.join(sorted(self.keys()))})"

    def _get_all(self) -> None:
        """Nothing to do: classes are found without loading."""

    def _at_home(self) -> list[str]:
        return list(import_module(self._home).__all__) if self._home else []


OPERATOR_REGISTRY = Registry("operators", "fastgen.dataflow.operators")
IO_REGISTRY = Registry("io", "fastgen.dataflow.io")
