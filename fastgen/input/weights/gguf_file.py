"""The header of a GGUF file: names, types and shapes of its tensors. The package `gguf` reads it, without torch. Does
not know what the tensors are for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastgen.input.weights.safetensors import BadFile, Header, Tensor

MARK = b"GGUF"
PREFIX = "GGUF "
"""Before the names of types, such as Q4_K."""
READ = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
"""Types that are multiplied out."""
INSTALL = "pip install 'fastgen[gguf]'"


def is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MARK)) == MARK
    except OSError:
        return False


def reader(path: Path) -> Any:
    """A `gguf.GGUFReader`, whose tensors are not read yet. Raises BadFile; the message has the fix."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise BadFile(f"is a GGUF file; to read it: {INSTALL}, or use the .safetensors version") from None
    try:
        return GGUFReader(path)
    except Exception as error:  # it checks little, so a damaged file ends in any of them
        brief = " ".join(str(error).split())[:200]
        raise BadFile(f"is a damaged GGUF file ({type(error).__name__}: {brief}); download it again") from None


def read_gguf(path: Path) -> Header:
    """The tensors of a file. Raises BadFile."""
    found: dict[str, Tensor] = {}
    for tensor in reader(path).tensors:
        kind = tensor.tensor_type.name
        if kind not in READ:
            raise BadFile(f"has {tensor.name} as {kind}; types that are read are {', '.join(READ)}: use one of these")
        found[tensor.name] = Tensor(PREFIX + kind, tuple(int(side) for side in reversed(tensor.shape)))
    return Header(found, {})
