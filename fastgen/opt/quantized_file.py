"""Tensors in a file: written whole or not at all, read with every checksum compared. Knows nothing of what they are.

A file is the tensors one after the other, an index of them with a checksum each, and at the very end where the index
is.
"""

from __future__ import annotations

import io
import os
import secrets
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch

END = struct.Struct("<8sQQI")
"""Of a whole file: a word, where its index begins, how long that is, its checksum."""
WORD = b"fastgen1"
ALIGNED = 64


class Damaged(Exception):
    """Not what was written."""


def write(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, tuple]) -> None:
    """Whole or not at all, whoever else writes it. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    index = {}
    try:
        with temporary.open("wb") as file:
            for name, tensor in tensors.items():
                file.write(bytes(-file.tell() % ALIGNED))
                data = _bytes(tensor.cpu())
                index[name] = (file.tell(), zlib.crc32(data), tensor.dtype, tensor.shape)
                file.write(data)
            said = io.BytesIO()
            torch.save((index, about), said)
            at = file.tell()
            file.write(said.getvalue())
            file.write(END.pack(WORD, at, len(said.getvalue()), zlib.crc32(said.getvalue())))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def read(path: Path, device: torch.device) -> tuple[dict[str, torch.Tensor], dict[str, tuple]]:
    """Tensors on a device, and what goes with them. The CPU's memory never holds more than a few of those for a GPU.

    Raises:
        FileNotFoundError. Damaged: it is not what was written.
    """
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        try:
            file.seek(length - END.size)
            word, at, size, checksum = END.unpack(file.read(END.size))
        except (OSError, struct.error):
            raise Damaged("it is cut off") from None
        if word != WORD or at + size + END.size != length:
            raise Damaged("it is cut off")
        file.seek(at)
        if zlib.crc32(said := file.read(size)) != checksum:
            raise Damaged("its index has another checksum")
        with suppress(ImportError):  # it says which of its classes may be read
            import torchao.quantization  # noqa: F401
        index, about = torch.load(io.BytesIO(said), weights_only=True)

        def one(name: str) -> torch.Tensor:
            start, checksum, dtype, shape = index[name]
            tensor = torch.empty(shape, dtype=dtype)
            data, done = _bytes(tensor), 0
            while done < len(data):
                if not (count := os.preadv(file.fileno(), [data[done:]], start + done)):
                    raise Damaged("it is cut off")
                done += count
            if zlib.crc32(data) != checksum:
                raise Damaged(f"{name} has another checksum")
            return tensor.to(device)

        with ThreadPoolExecutor(4) as pool:
            return dict(zip(index, pool.map(one, index), strict=True)), about


def _bytes(tensor: torch.Tensor) -> memoryview:
    """A contiguous tensor's own memory."""
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
