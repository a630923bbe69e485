"""Tensors in a file: written completely or not at all, read with a check of every checksum. Does not know what they
are.

A file contains the tensors one after the other, an index with a checksum for each, and at the very end the position of
the index.
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
"""The end of a complete file: a magic word, then position, length and checksum of its index."""
WORD = b"fastgen1"
ALIGNED = 64


class Damaged(Exception):
    """The file is not what was written."""


def write(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, tuple]) -> None:
    """Write the file completely or not at all, even if other processes write it too. Raises OSError."""
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
    """Tensors on a device, and their metadata. Main memory never holds more than a few of the tensors for a GPU.

    Raises:
        FileNotFoundError. Damaged: the file is not what was written.
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
            raise Damaged("the checksum of its index is wrong")
        with suppress(ImportError):  # importing it registers the classes that may be read
            import torchao.quantization  # noqa: F401

            import fastgen.opt.block_scaled  # noqa: F401
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
                raise Damaged(f"the checksum of {name} is wrong")
            return tensor.to(device)

        with ThreadPoolExecutor(4) as pool:
            return dict(zip(index, pool.map(one, index), strict=True)), about


def _bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
