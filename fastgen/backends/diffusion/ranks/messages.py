"""What the processes of a replica tell each other, and samples on their way. Does not know who says what when."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.transfer import upload
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings

# From the first one


@dataclass(frozen=True)
class Hello:
    """The first message."""

    settings: Settings
    device: Device
    number: int
    """Of this process."""
    folder: str
    """Where they find each other; it is removed at the end."""


@dataclass(frozen=True)
class Join:
    """All of them have loaded the model, or have left because the memory of one was full. Samples that are not done are
    forgotten."""

    time: int = 0
    """How often they have been connected before."""


@dataclass(frozen=True)
class Leave:
    """The memory of one of them is full: give up what is exchanged now. Read at once, before what came earlier."""


@dataclass(frozen=True)
class Parcel:
    """A sample without its tensors, which are sent by `broadcast` after the message, in this order."""

    body: bytes
    tensors: tuple[tuple[torch.Size, torch.dtype], ...]


@dataclass(frozen=True)
class Form:
    """Make a group of these samples."""

    group: int
    samples: tuple[int, ...]
    new: dict[int, Parcel]
    """Those that were in no group before."""
    gone: tuple[int, ...]
    """Samples that are needed no more."""


@dataclass(frozen=True)
class Step:
    """Let the group take a step."""

    group: int


@dataclass(frozen=True)
class Dissolve:
    group: int


@dataclass(frozen=True)
class Decode:
    """Decode finished samples of one size, and send the pixels back."""

    number: int
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Forget:
    """The next run begins: memory limits that were found belong to the one before."""


# From the others


@dataclass(frozen=True)
class Loaded:
    """The model is there."""


@dataclass(frozen=True)
class Did:
    """The answer to `Form` and `Step`."""

    full: str = ""
    """Why not: the memory is full, here or elsewhere. This process has left."""


@dataclass(frozen=True)
class Decoded:
    """The answer to `Decode`: uint8 (H, W, 3), None in the place of one that is not finite."""

    number: int
    pictures: list[Any]
    tiled: bool
    """Whether memory was so low that they were decoded in tiles."""
    full: str = ""
    """Why there are none: the memory is full."""


class _Packer(pickle.Pickler):
    """Puts tensors aside."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.tensors: list[torch.Tensor] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, torch.Tensor):
            return None
        self.tensors.append(value)
        return len(self.tensors) - 1


class _Unpacker(pickle.Unpickler):
    def __init__(self, body: bytes, tensors: list[torch.Tensor]):
        super().__init__(io.BytesIO(body))
        self._tensors = tensors

    def persistent_load(self, place: int) -> torch.Tensor:
        return self._tensors[place]


def packed(sample: Sample) -> tuple[Parcel, list[torch.Tensor]]:
    """A sample for a message, and the tensors to send after it."""
    file = io.BytesIO()
    packer = _Packer(file)
    packer.dump(sample)
    kinds = tuple((tensor.shape, tensor.dtype) for tensor in packer.tensors)
    return Parcel(file.getvalue(), kinds), packer.tensors


def send(tensors: list[torch.Tensor], device: torch.device) -> None:
    """To all others, from the device."""
    for tensor in tensors:
        dist.broadcast(upload(tensor, device).contiguous(), 0)


def received(parcel: Parcel, device: torch.device) -> Sample:
    """The sample, with its tensors on the device."""
    tensors = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in parcel.tensors]
    for tensor in tensors:
        dist.broadcast(tensor, 0)
    return _Unpacker(parcel.body, tensors).load()
