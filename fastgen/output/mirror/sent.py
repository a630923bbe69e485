"""Which part of a journal is in object storage, kept in the state folder. Does not speak to the storage."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from fastgen.errors import DiskError, RunFolderError

NAME = "storage.json"
FOLDER = "journal"
"""Where the segments are."""


def segment(number: int) -> str:
    """The name of a segment of the journal, counted from 1."""
    return f"{FOLDER}/{number:08}.jsonl"


class Sent(msgspec.Struct):
    """Of one state folder."""

    url: str
    writer: str
    """Names this state folder, for the lease."""
    segments: int = 0
    """Segments whose lines are in the journal of the state folder."""
    offset: int = 0
    """Bytes of that journal that are in segments."""
    published: str = ""
    """Tells the tables that were sent last from others."""


_decode = msgspec.json.Decoder(Sent).decode


def read(out: Path, url: str) -> Sent:
    """That of a state folder; a new one if it has none, or a damaged one. Raises RunFolderError, OSError."""
    try:
        found = _decode((out / NAME).read_bytes())
    except FileNotFoundError:
        return Sent(url, secrets.token_hex(8))
    except msgspec.MsgspecError:  # a power cut; joining again costs time only
        return Sent(url, secrets.token_hex(8))
    if found.url != url:
        raise RunFolderError(f"--state {out}: belongs to {found.url}; give another folder")
    return found


def write(out: Path, sent: Sent) -> None:
    """Raises DiskError."""
    temporary = out / f".{NAME}"
    try:
        temporary.write_bytes(msgspec.json.encode(sent))
        os.replace(temporary, out / NAME)
    except OSError as error:
        raise DiskError(f"cannot write {out / NAME}: {error.strerror}") from None
