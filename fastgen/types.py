"""The nouns that every layer shares. Frozen, small, and always resolved.

Knows only msgspec: these structs travel between processes (msgpack) and into the journal (JSON).
"""

from __future__ import annotations

from typing import Literal

import msgspec

Task = Literal["t2i", "edit", "caption"]

# Why a row has no result. `policy.py` decides what each kind leads to.
Kind = Literal[
    "input",  # the row is bad: only its owner can mend it
    "oom",  # the engine ran out of memory
    "refused",  # the backend declined the content
    "transient",  # worth another try
    "nan",  # the model made numbers that are not finite, so there is no picture
    "internal",  # the backend raised something unforeseen
    "poison",  # it killed its worker, alone, twice
    "disk",  # the output disk refuses writes
    "unavailable",  # nobody answers there: no connection, no reply in time, a server error that stays
    "rate_limited",  # the service asks for patience
    "quota",  # the account has nothing left there
    "unauthorized",  # the key is wrong or may not do this
    "gone",  # the service does not have the model, or no longer
    "unsupported",  # this backend cannot do what the row asks, or its paid answer is of no use and would be again
    "truncated",  # the answer was cut off at the token limit
    "empty",  # an answer with nothing in it
    "malformed",  # an answer that is not what the service promises: no JSON, not under the schema, a broken picture
]


FileStamp = tuple[int, str]
"""(size in bytes, hash of all of it) of a file that was written; see `config.stamps.digest`."""
InputStamp = tuple[int, int, int]
"""(size in bytes, mtime in ns, CRC-32 of all of it) of a picture that was read."""


class ImageParams(msgspec.Struct, frozen=True, tag="image", omit_defaults=True):
    """How an image is to be made. `width` and `height` are those of the saved picture, in pixels; 0 where an API
    decides.

    The last four are words of the APIs, "" where the service decides; the engine on this machine knows none of them.
    """

    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    n: int
    quality: str = ""
    background: str = ""
    aspect_ratio: str = ""
    resolution: str = ""


class TextParams(msgspec.Struct, frozen=True, tag="text"):
    """How a text is to be made."""

    max_tokens: int
    temperature: float
    seed: int


class Request(msgspec.Struct, frozen=True):
    """All that a backend needs to know of one row, and nothing of the user's row besides.

    Images are numbered j = 0, 1, ... in the order (prompt, copy); image j takes its noise from `params.seed + j`.
    """

    id: str
    task: Task
    prompts: tuple[str, ...]
    """One per user turn. t2i: each gives `n` pictures. edit: applied one after the other. caption: none, see
    `dialogue`."""
    params: ImageParams | TextParams
    render: tuple[int, int] = (0, 0)
    """(width, height) at which the model works; differs from the saved size only for a masked edit."""
    images: tuple[str, ...] = ()
    """Input pictures, absolute paths. Several are references of one edit, or the pictures that a caption is about."""
    dialogue: tuple[tuple[str, str], ...] = ()
    """caption: (role, text) of every turn, the last one the user's; each `<image>` in a text is the place of one
    picture."""
    size: tuple[int, int] = (0, 0)
    """(width, height) that the row or --size asked for; (0, 0) if neither did, and an API may decide."""
    mask: str = ""
    reference: tuple[int, int] = (0, 0)
    """(width, height) to which the input pictures are brought for the model; (0, 0) without any."""
    content: str = ""
    """Hash of what the row says, so that a row that keeps its id but says something new is made anew."""
    row: int = 0
    """Its number in the input, for messages."""
    image_field: str = "images"
    """Where the row names its pictures, for messages."""
    stem: str = ""
    """How the names of its files begin where the one that follows from its id is taken; see `artifacts.picture`."""

    @property
    def input_paths(self) -> tuple[str, ...]:
        """All pictures that it reads, the mask last."""
        return (*self.images, self.mask) if self.mask else self.images

    @property
    def samples(self) -> int:
        """Pictures that are in the making at the same time."""
        if not isinstance(self.params, ImageParams):
            return 1
        return self.params.n * (len(self.prompts) if self.task == "t2i" else 1)


class Bucket(msgspec.Struct, frozen=True, order=True):
    """What must be equal for requests to share a forward pass. The text length is one per model."""

    task: str
    width: int
    height: int
    reference: tuple[int, int]
    turns: int

    @classmethod
    def of(cls, request: Request) -> Bucket:
        turns = len(request.prompts) if request.task == "edit" else 1
        return cls(request.task, *request.render, request.reference, turns)

    def __str__(self) -> str:
        text = self.task if (self.width, self.height) == (0, 0) else f"{self.task} {self.width}x{self.height}"
        if self.reference != (0, 0):
            text += f", reference {self.reference[0]}x{self.reference[1]}"
        return text + (f", {self.turns} turns" if self.turns > 1 else "")


class Batch(msgspec.Struct, frozen=True):
    bucket: Bucket
    requests: tuple[Request, ...]

    @property
    def samples(self) -> int:
        return sum(r.samples for r in self.requests)


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="status", omit_defaults=True):
    """A finished request. Paths are relative to the run folder; pixels never travel."""

    id: str
    backend: str
    """Who served it."""
    model: str
    paths: tuple[str, ...]
    params: ImageParams | TextParams
    seconds: float
    """This request's share of its batch's time in the engine; the time of the call where it went to an API."""
    content: str = ""
    attempts: int = 1
    text: str = ""
    """caption: what was said."""
    warnings: tuple[str, ...] = ()
    stages: dict[str, float] = {}
    """Seconds by stage for the whole batch; on the first result of a batch only."""
    cache: dict[str, int | str] = {}
    """With a step cache: `steps`, those `computed` in full, and the `pattern` of them, 1 for computed."""
    work: dict[str, int] = {}
    """Blocks evaluated, graphs compiled, the peak of the GPU's memory: for the whole batch, on its first result
    only."""
    usage: dict[str, int] = {}
    """Tokens, as the service counted them."""
    cost: float = 0.0
    """USD, over all attempts."""
    files: tuple[FileStamp, ...] = ()
    """Of the files at `paths`, as they were written; none in journals of version 0.1.0."""
    inputs: tuple[InputStamp, ...] = ()
    """Of `Request.input_paths`, as they were read."""


class Failed(msgspec.Struct, frozen=True, tag="failed", tag_field="status", omit_defaults=True):
    id: str
    kind: Kind
    message: str
    field: str = ""
    backend: str = ""
    model: str = ""
    content: str = ""
    attempts: int = 1
    """0 where a backend hands it back without having begun."""
    retry_after: float = 0.0
    """Seconds that the service asked to wait; 0 if it did not say."""
    cost: float = 0.0
    """USD that the attempts cost or, where nobody can tell (no reply in time), may have cost at most."""
    inputs: tuple[InputStamp, ...] = ()
    """Of `Request.input_paths`, as they were read."""


Result = Done | Failed


def warm(*kinds: type) -> None:
    """Have msgspec prepare to decode these now. A module calls it where it defines them, so that no two threads can be
    the first: msgspec 0.22 ends the process with SIGSEGV then, now and then (bench/LOG.md)."""
    for kind in kinds:
        msgspec.json.Decoder(kind)


warm(Request, Batch, Done, Failed)
