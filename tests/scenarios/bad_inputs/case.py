"""The three sorts of bad input: a row, a command, a call from Python. Knows nothing of single ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LONG = 300_000
"""Characters; of none of them more than 200 are to be quoted."""


@dataclass(frozen=True)
class Row:
    """A bad row among good ones."""

    kind: str
    """What is bad about it, for the page. Each is there once in its room."""
    row: Any
    """A dict, or the bytes of a line."""
    field: str
    """Of the error; "" for the row as a whole."""
    words: str
    """In the message; where `done`, in the row's warnings ("" for none)."""
    done: bool = False
    failure: str = "input"
    """The kind of failure."""


@dataclass(frozen=True)
class Command:
    """A command that is refused before any work."""

    kind: str
    line: tuple[str, ...]
    """The words after `fastgen`."""
    names: str
    """What the message must name: a flag, a variable, a file."""
    words: str
    """In the message."""
    environment: dict[str, str] = field(default_factory=dict)
    code: int = 2


@dataclass(frozen=True)
class Call:
    """A call from Python that raises one of fastgen's own errors."""

    kind: str
    call: Callable[[], object]
    names: str
    words: str


@dataclass(frozen=True)
class Told:
    """What became of one of them."""

    kind: str
    where: str
    """Where the message is: the field of a row, the run, the call."""
    message: str
    code: int = 0
    """Exit code of a command; 3 for a row, whose run goes on."""
