"""The messages between a ProcessWorker and its child: msgpack over a socket pair, one struct per message."""

from __future__ import annotations

import msgspec

from fastgen.config.device_errors import FAULT_EXIT
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.types import Batch, Result

DEVICE_FAULT_EXIT = FAULT_EXIT

# To the child


class Hello(msgspec.Struct, tag=True):
    """The first message: what to open."""

    settings: Settings
    device: Device
    slots: int


class Work(msgspec.Struct, tag=True):
    number: int
    batch: Batch


class Reconfigure(msgspec.Struct, tag=True):
    """From now on the work is for another run, whose folder has the log. Sent only while nothing is in progress."""

    settings: Settings
    log: str


class CancelPending(msgspec.Struct, tag=True):
    """Do not start what has not started; send it back."""


# From the child


class Ready(msgspec.Struct, tag=True):
    """The backend is open."""

    facts: dict


class CannotStart(msgspec.Struct, tag=True):
    message: str
    by_user: bool
    """Whether the user can fix it (a ModelError)."""
    only_here: bool = False
    """Whether it is this machine that cannot; others may."""


class Beat(msgspec.Struct, tag=True):
    """A sign of life."""

    memory_mib: int = 0
    """Main memory that the child has; 0 if it does not say."""


class Warned(msgspec.Struct, tag=True):
    """What the user should know; it is about no batch."""

    message: str


class Paying(msgspec.Struct, tag=True):
    """What is sent next for this batch may cost money. This message comes before it is sent."""

    number: int


class DeviceFault(msgspec.Struct, tag=True):
    """The last message: the device has failed for this process, which ends with DEVICE_FAULT_EXIT."""

    message: str


class Finished(msgspec.Struct, tag=True):
    number: int
    results: list[Result]


class DiskFull(msgspec.Struct, tag=True):
    number: int
    message: str


ToChild = Hello | Work | Reconfigure | CancelPending
FromChild = Ready | CannotStart | Beat | Warned | Paying | DeviceFault | Finished | DiskFull
encode = msgspec.msgpack.Encoder().encode
decode_to_child = msgspec.msgpack.Decoder(ToChild).decode
decode_from_child = msgspec.msgpack.Decoder(FromChild).decode
