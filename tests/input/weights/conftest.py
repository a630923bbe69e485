from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from fastgen.config.model_cards import TINY
from fastgen.input import weights

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "U8": 1, "I64": 8}


def write(path: Path, tensors: dict[str, tuple], metadata: dict[str, str] | None = None) -> Path:
    """A .safetensors file of zeros: name -> shape, or (type, shape)."""
    header: dict = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, about in tensors.items():
        dtype, shape = about if about and isinstance(about[0], str) else ("F32", about)
        start, end = end, end + SIZES[dtype] * _count(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    said = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(said)) + said + bytes(end))
    return path


def _count(shape: tuple) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


@pytest.fixture(scope="session")
def model():
    """The layers of the embedded model: 2 double and 4 single blocks, 128 wide."""
    return weights.read_model(TINY)


@pytest.fixture
def file(tmp_path):
    """file(tensors, metadata) -> path of a .safetensors file of zeros."""
    return lambda tensors, metadata=None: write(tmp_path / "a.safetensors", tensors, metadata)
