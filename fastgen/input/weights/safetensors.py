"""The header of a .safetensors file: names, types and shapes of its tensors. Does not know what they are for.

The format: eight bytes with the header's length, the header as JSON, and the tensors' bytes.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 100_000_000
"""Maximum size of a header, as in safetensors itself."""
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


class BadFile(Exception):
    """A file cannot be used. The text follows the flag and the path."""


@dataclass(frozen=True)
class Tensor:
    dtype: str
    """The name in safetensors: F32, BF16, F8_E4M3 ..."""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The tensors of a file according to its header; all of them must be in it.

    Raises:
        BadFile: it is not a .safetensors file, or is damaged; the message has the fix.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = path.stat().st_size
            _refuse_other_formats(path, start)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else MOST_BYTES
            if not 2 <= size <= min(MOST_BYTES, length - 8):
                raise BadFile("is not a .safetensors file, or is cut off; download it again")
            said = json.loads(file.read(size))
    except OSError as error:
        raise BadFile(f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise BadFile("is not a .safetensors file, or is damaged; download it again") from None
    try:
        metadata = said.pop("__metadata__", None) or {}
        for name, about in said.items():
            _check(name, about, length - 8 - size)
        tensors = {name: Tensor(about["dtype"], tuple(about["shape"])) for name, about in said.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise BadFile("its header is damaged; download it again") from None
    return Header(tensors, {str(name): str(value) for name, value in metadata.items()})


def _refuse_other_formats(path: Path, start: bytes) -> None:
    if path.suffix.lower() in PICKLES or start[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise BadFile(
            "is a pickle, which can run any code when it is opened. Use the .safetensors version, or convert a file "
            "that you trust: python -c 'import sys, torch; from safetensors.torch import save_file; "
            "save_file(torch.load(sys.argv[1], weights_only=True), sys.argv[2])' OLD NEW.safetensors"
        )
    if start[:4] == b"GGUF":
        raise BadFile("is a GGUF file, which is read for --transformer only; use the .safetensors version")


def _check(name: str, about: dict, length: int) -> None:
    """Raise ValueError if a tensor in the file does not fit its type and shape."""
    first, last = about["data_offsets"]
    count = 1
    for side in about["shape"]:
        count *= side
    known = BYTES.get(about["dtype"])
    if not 0 <= first <= last <= length or (known and last - first != count * known):
        raise BadFile(f"{name} is cut off or has the wrong size; download the file again")
