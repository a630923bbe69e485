"""When memory has run out: libraries say so in several ways."""

from __future__ import annotations

import torch


class OutOfMemory(Exception):
    """Not even one sample fits."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return "can't allocate memory" in text or "out of memory" in text or "not enough memory" in text
