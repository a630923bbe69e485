"""Whether xformers fits the PyTorch that is installed here, by the files of both. Imports neither.

Its wheels on PyPI (0.0.34 and 0.0.35, read on 2026-11-28) are built for CUDA 12.8 and load libcudart.so.12, which a
PyTorch for CUDA 13 does not have: those of PyPI from 2.11 on are. 0.0.35 uses only PyTorch's stable interface, so it
fits every PyTorch for CUDA 12 from 2.10 on; 0.0.34 only 2.10.0. Therefore there is no extra that installs it.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from fastgen.config import torch_build

PAIR = "xformers 0.0.35 with a PyTorch for CUDA 12, 2.10 or newer (https://pytorch.org/get-started/locally)"
SOURCE = "xformers built from source (pip install --no-build-isolation --no-binary xformers xformers; needs nvcc)"


def refuse() -> str | None:
    """Why xformers cannot be used here, and which pair can; None if nothing speaks against it."""
    spec, cuda = find_spec("xformers"), torch_build.cuda_version()
    if spec is None:
        return f"the package xformers is not installed; what works is {PAIR}, or {SOURCE}"
    built_for = _built_for(Path(spec.origin or "").parent)
    if not cuda or not built_for or built_for.partition(".")[0] == cuda.partition(".")[0]:
        return None
    return (
        f"xformers is built for CUDA {built_for}, and this PyTorch for CUDA {cuda}; what works is {PAIR}, or {SOURCE}"
    )


def _built_for(folder: Path) -> str:
    """Such as "12.8"; "" if it is unknown."""
    try:
        number = json.loads((folder / "cpp_lib.json").read_text("utf-8"))["version"]["cuda"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f"{number // 100}.{number % 100}" if isinstance(number, int) else ""
