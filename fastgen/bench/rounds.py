"""What an arm is asked and what it answers: a round of rows, timed by the arm itself. Does not know who runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from fastgen.types import warm


class Round(msgspec.Struct, omit_defaults=True):
    """The result of a round."""

    seconds: float = 0.0
    made: dict[str, str] = {}
    """Id -> the path of a row's image, or its text. Failed rows are left out."""
    stages: dict[str, float] = {}
    """Seconds by stage, summed over batches that overlap."""
    work: dict[str, int] = {}
    """What the engine counted: blocks evaluated, graphs compiled."""
    facts: dict = {}
    """What it reported when it was opened."""
    gpu_peak_gib: float = 0.0
    """The peak of its GPU memory so far; 0 on a CPU."""
    failed: int = 0
    """Rows that failed."""
    error: str = ""
    """Why there is no result, or too little."""
    by_user: bool = False
    """Whether settings or hardware are the reason, rather than an error."""


warm(Round)

Play = Callable[[list[dict], Path], Round]
"""Rows and a folder for their results -> the results."""
