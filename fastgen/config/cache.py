"""The folder for things that fastgen can make again: compiled code, quantized weights, hashes of large files."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder may not exist yet."""
    if home := os.environ.get("FASTGEN_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastgen"
