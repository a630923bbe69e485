"""What an arm is asked and what it answers: a round of rows, timed by the arm itself. Knows nothing of who plays it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from fastgen.types import warm


class Round(msgspec.Struct, omit_defaults=True):
    """What came of a round."""

    seconds: float = 0.0
    made: dict[str, str] = {}
    """By id the path of a row's picture, or its text. A row that failed is not there."""
    stages: dict[str, float] = {}
    """Seconds by stage, summed over batches that overlap."""
    work: dict[str, int] = {}
    """What the engine counted: blocks evaluated, graphs compiled."""
    facts: dict = {}
    """What it said of itself when it was open."""
    gpu_peak_gib: float = 0.0
    """The most that it has held of the GPU's memory so far; 0 on a CPU."""
    failed: int = 0
    """Rows that came to nothing."""
    error: str = ""
    """Why nothing, or too little, came of it."""
    by_user: bool = False
    """Whether it is a matter of settings and hardware, and no fault."""


warm(Round)

Play = Callable[[list[dict], Path], Round]
"""Rows and a folder for what comes of them -> what came of them."""
