"""What families compute once per kind of sample and keep: noise levels, rotary positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast

Asked = ParamSpec("Asked")
Made = TypeVar("Made")
MOST = 64
"""Results of a function that are kept, those last used: a model may be asked for any number of sizes."""


def memoized(function: Callable[Asked, Made]) -> Callable[Asked, Made]:
    """The same function, which remembers its last results."""
    return cast("Callable[Asked, Made]", lru_cache(MOST)(function))
