"""What a Batch API must be able to do, in words that fit both services. Nouns only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fastgen.output.parcels import Answer, Parcel
from fastgen.types import Kind


@dataclass(frozen=True)
class Look:
    """How a batch is."""

    ended: bool = False
    is_full: bool = False
    """It was not begun, because too much waits at the service already. It may be submitted again."""
    done: int = 0
    failed: int = 0
    """Requests, as the service counts them."""
    files: tuple[str, ...] = ()
    """What it has made so far, if it has ended."""
    otherwise: tuple[Kind, str] = ("unavailable", "")
    """Why a request has no answer in these files."""


class Service(Protocol):
    """Made as `Class(settings)`. All methods that send something raise ProviderError."""

    most_requests: int
    most_bytes: int
    """Of one batch."""

    def open(self) -> None:
        """Raises ModelError if there is no Batch API at that address."""

    def path_of(self, url: str) -> str:
        """What a request to that address is called in a batch, "" if a batch does not take it. A batch has one kind."""

    def line(self, key: str, path: str, body: bytes) -> bytes:
        """A request in the file."""

    def upload(self, parcel: Parcel, file: Path) -> str:
        """Returns the file's name at the service."""

    def submit(self, parcel: Parcel) -> str:
        """Returns the batch's name at the service."""

    def find(self, parcel: Parcel) -> str:
        """The batch that was submitted under the parcel's name; "" if there is none."""

    def look(self, parcel: Parcel) -> Look: ...

    def fetch(self, file: str, to: Path) -> None:
        """Raises DiskError, too."""

    def read(self, line: bytes) -> Answer | None:
        """A line of a file of results; None if it is none."""

    def close(self) -> None: ...
