"""What a test reads afterwards (Recorded, Seen), and what the two formats need to know beside a request (About)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from tests.simulator.prices import Usage


@dataclass(slots=True)
class Seen:
    """An input picture as it arrived (size: after its EXIF orientation)."""

    size: tuple[int, int]
    mode: str
    format: str
    mime: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, picture: Image.Image, data: bytes, mime: str) -> Seen:
        sha = hashlib.sha256(data).hexdigest()
        return cls(picture.size, picture.mode, picture.format or "", mime, sha, len(data))


@dataclass(slots=True)
class Recorded:
    """One request. status is 0 while it is being answered and when it gets no answer, 499 when the client left.

    operation: "generate", "edit", "chat", "gemini" or "models"; empty when the gate refused it unread. fault: the
    fault's name, or "storm", "rate" or "slots" when the gate refused it.
    """

    number: int
    api: str
    operation: str
    time: float
    key: str
    prompt: str = ""
    model: str = ""
    images: list[Seen] = field(default_factory=list)
    mask: Image.Image | None = None
    params: dict = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    """chat: the texts of all turns, in order."""
    fault: str = ""
    status: int = 0
    cost_usd: float = 0.0


@dataclass(slots=True)
class About:
    seed: int
    number: int
    models: frozenset[str]
    price: Callable[[str, Usage], float]
    draws: str = ""
    """How a chat's answer holds its picture, one of chat_gateway.FORMS; "": chats draw nothing."""
    streams_only: bool = False
    no_images: int = 404
    put: Callable[[bytes], str] = str
    """Keeps a picture, and gives its address."""


@dataclass(slots=True)
class Call:
    """A request that was read and found good. kind: a key of faults.APPLIES. values: its fields as plain values."""

    kind: str
    model: str
    values: dict
    inputs: list[Image.Image] = field(default_factory=list)
    mask: Image.Image | None = None
    size: tuple[int, int] | None = None
    texts: list[str] = field(default_factory=list)
    stream: bool = False
    include_usage: bool = False
