"""The nouns that every room shares. They are frozen, small, and have all defaults filled in.

Knows only msgspec: these structs travel between processes (msgpack) and into the journal (JSON).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from PIL.Image import Image

Task = Literal["t2i", "edit", "caption"]

# Why a row has no result. `failure_policy.py` decides what each kind leads to.
Kind = Literal[
    "input",  # the row is bad: only its owner can fix it
    "oom",  # the engine ran out of memory
    "refused",  # the backend declined the content
    "transient",  # worth another try
    "nan",  # the model computed numbers that are not finite, so there is no image
    "internal",  # the backend raised something unexpected
    "poison",  # it killed its worker, alone, twice
    "disk",  # the output disk refuses writes
    "unavailable",  # the service does not answer: no connection, no reply in time, a lasting server error
    "rate_limited",  # the service asks for a pause
    "quota",  # the account has no credit left
    "unauthorized",  # the key is wrong or lacks permission
    "gone",  # the service does not have the model, or no longer has it
    "unsupported",  # this backend cannot do what the row asks, or its paid answer is of no use and would be again
    "truncated",  # the answer was cut off at the token limit
    "empty",  # the answer was empty
    "malformed",  # the answer is not what the service promises: no JSON, not under the schema, a broken image
]


FileStamp = tuple[int, str]
"""(size in bytes, hash of the content) of a file that was written; see `config.stamps.digest`."""
InputStamp = tuple[int, int, int]
"""(size in bytes, ctime in ns, CRC-32 of the content) of an image that was read."""


class ImageParams(msgspec.Struct, frozen=True, gc=False, tag="image", omit_defaults=True):
    """How an image is made. `width` and `height` are those of the saved image, in pixels; 0 if an API decides.

    `quality` and the three after it are options of APIs, "" if the service decides; the local engine has none of them.

    >>> import fastgen
    >>> settings = fastgen.resolve("t2i", out="run", model="tiny", gpus="cpu", size="128x128", steps=4)
    >>> rows = [{"prompt": "a red circle on a blue background", "name": "first"}]
    >>> for result in fastgen.generate(settings, rows):
    ...     print(isinstance(result.params, fastgen.ImageParams), result.params.width, result.params.steps)
    True 128 4
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
    negative_prompt: str | None = None
    """The prompt of the second pass of true classifier-free guidance; only local models have it."""
    true_cfg_scale: float | None = None


class TextParams(msgspec.Struct, frozen=True, gc=False, tag="text"):
    """How a text is made: the `params` of a caption's result.

    >>> import fastgen
    >>> fastgen.TextParams(max_tokens=512, temperature=0.0, seed=0).max_tokens
    512
    """

    max_tokens: int
    temperature: float
    seed: int


class Request(msgspec.Struct, frozen=True, gc=False):
    """Everything that a backend needs to know about one row, and nothing else from the user's row.

    Images are numbered j = 0, 1, ... in the order (prompt, copy); image j takes its noise from `params.seed + j`.

    Backends are given requests; a backend of your own (docs/design.md) gets them in batches.

    >>> import fastgen
    >>> how = fastgen.ImageParams(width=1024, height=1024, steps=28, guidance=3.5, seed=7, n=2)
    >>> fastgen.Request(id="boat", task="t2i", prompts=("a red boat", "the same boat at night"), params=how).samples
    4
    """

    id: str
    task: Task
    prompts: tuple[str, ...]
    """One per user turn. t2i: each gives `n` images. edit: applied one after the other. caption: none, see
    `dialogue`."""
    params: ImageParams | TextParams
    render: tuple[int, int] = (0, 0)
    """(width, height) at which the model works; differs from the saved size only for a masked edit."""
    images: tuple[str, ...] = ()
    """Absolute paths of the input images. Several are references of one edit, or the images that a caption is about."""
    dialogue: tuple[tuple[str, str], ...] = ()
    """caption: (role, text) of every turn, the last one the user's; each `<image>` in a text is the place of one
    image."""
    size: tuple[int, int] = (0, 0)
    """(width, height) that the row or --size asked for; (0, 0) if neither did, so an API may decide."""
    mask: str = ""
    mask_field: str = "mask"
    """The row's field with the mask, for messages."""
    mask_convention: str = ""
    """Which of its pixels are repainted: one of `input.masks.CONVENTIONS`; "" to judge by the pixels."""
    reference: tuple[int, int] = (0, 0)
    """(width, height) of the sheet of input images that the model sees; (0, 0) without any."""
    places: tuple[tuple[int, int, int, int], ...] = ()
    """The place of each input image on that sheet: left, top, width, height."""
    references: tuple[tuple[int, int], ...] = ()
    """(width, height) of each input image, if the model sees them apart; then there is no sheet."""
    content: str = ""
    """Hash of what the row says, so that a row that keeps its id but changes its content is made again."""
    row: int = 0
    """Its number in the input, for messages."""
    image_field: str = "images"
    """The field in which the row names its images, for messages."""
    keep_turns: bool = False
    """edit: whether the image of each turn is a result; otherwise only that of the last turn is."""
    variation: bool = False
    """edit: whether a variation is requested from a service that has an endpoint for it."""
    asked: tuple[str, ...] = ()
    """t2i, edit: which of `seed`, `steps` and `guidance` the row or a flag sets; a service decides on the others."""
    negative_prompt: str = ""
    """For servers that take one."""
    loras: tuple[tuple[str, float], ...] = ()
    """(absolute path, scale) of the row's own LoRAs, in the order in which they are merged."""
    stem: str = ""
    """The prefix of its file names if the one that follows from its id is taken; see `artifacts.picture`."""

    @property
    def input_paths(self) -> tuple[str, ...]:
        """All images that it reads, the mask last."""
        return (*self.images, self.mask) if self.mask else self.images

    @property
    def read_paths(self) -> tuple[str, ...]:
        """All files that decide its result: images, and the row's own LoRAs."""
        return (*self.input_paths, *(path for path, _ in self.loras))

    @property
    def image_params(self) -> ImageParams:
        """`params` of a t2i or edit row."""
        assert isinstance(self.params, ImageParams)
        return self.params

    @property
    def text_params(self) -> TextParams:
        """`params` of a caption row."""
        assert isinstance(self.params, TextParams)
        return self.params

    @property
    def samples(self) -> int:
        """Images that are made at the same time."""
        if not isinstance(self.params, ImageParams):
            return 1
        return self.params.n * (len(self.prompts) if self.task == "t2i" else 1)

    @property
    def work(self) -> float:
        """How much there is to do, to compare rows of a run: for images steps times pixels, for a text 1."""
        params = self.params
        if not isinstance(params, ImageParams):
            return 1.0
        width, height = self.render if all(self.render) else (params.width, params.height)
        pixels = width * height + self.reference[0] * self.reference[1]
        pixels += sum(w * h for w, h in self.references)
        turns = len(self.prompts) if self.task == "edit" else 1
        passes = 2 if params.true_cfg_scale is not None and params.true_cfg_scale > 1 else 1
        return float(max(1, pixels) * max(1, params.steps) * turns * passes * max(1, self.samples))


class Bucket(msgspec.Struct, frozen=True, gc=False, order=True):
    """What must be equal for requests to share a forward pass. The text length is fixed per model."""

    task: str
    width: int
    height: int
    reference: tuple[int, int]
    turns: int
    references: tuple[tuple[int, int], ...] = ()
    loras: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, request: Request) -> Bucket:
        turns = len(request.prompts) if request.task == "edit" else 1
        return cls(request.task, *request.render, request.reference, turns, request.references, request.loras)

    def __str__(self) -> str:
        text = self.task if (self.width, self.height) == (0, 0) else f"{self.task} {self.width}x{self.height}"
        if self.reference != (0, 0):
            text += f", reference {self.reference[0]}x{self.reference[1]}"
        for width, height in self.references:
            text += f", reference {width}x{height}"
        for path, scale in self.loras:
            text += f", {path}:{scale:g}"
        return text + (f", {self.turns} turns" if self.turns > 1 else "")


class Batch(msgspec.Struct, frozen=True, gc=False):
    bucket: Bucket
    requests: tuple[Request, ...]

    @property
    def samples(self) -> int:
        return sum(r.samples for r in self.requests)


def _opened(path: str) -> Any:
    """A file, also one in object storage."""
    if "://" not in path:
        return open(path, "rb")
    import fsspec

    return fsspec.open(path, "rb")


class Images(Sequence["Image"]):
    """Images of a result, as Pillow's. One is read when it is asked for, and its file is closed again."""

    def __init__(self, paths: Sequence[str]):
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: Any) -> Any:
        from PIL import Image

        if isinstance(number, slice):
            return Images(self.paths[number])
        with _opened(self.paths[number]) as file, Image.open(file) as image:
            image.load()
        return image

    def __repr__(self) -> str:
        return f"Images({list(self.paths)})"


class _Told(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What a result has besides, when it is given to a Python caller. Nothing of it is in the journal."""

    row: dict[str, Any] = {}
    """The row as the user wrote it."""
    folder: str = ""
    """Where `paths` start; an address, if the files are no longer on this machine."""
    earlier: bool = False
    """Whether an earlier run made it; nothing was done for it in this one."""


class Done(_Told, frozen=True, gc=False, tag="done", tag_field="status", omit_defaults=True):
    """The result of a row that has one. Paths are relative to the run folder; pixels never travel.

    >>> import fastgen
    >>> settings = fastgen.resolve("t2i", out="run", model="tiny", gpus="cpu", size="128x128", steps=4)
    >>> [done] = fastgen.generate(settings, rows=[{"prompt": "a red circle on a blue background", "name": "first"}])
    >>> done.images[0].size, done.row["name"], done.error
    ((128, 128), 'first', None)
    """

    id: str
    backend: str
    """Which backend made it."""
    model: str
    paths: tuple[str, ...]
    params: ImageParams | TextParams
    seconds: float
    """This request's share of its batch's time in the engine; for an API, the time of the call."""
    content: str = ""
    attempts: int = 1
    text: str = ""
    """caption: the text."""
    reasoning: str = ""
    """caption: what the model thought before it answered."""
    removed: tuple[str, ...] = ()
    """caption: markup that was around the text and is not part of it."""
    sent: tuple[str, ...] = ()
    """Which of `seed`, `steps`, `guidance` a service was given."""
    not_sent: tuple[str, ...] = ()
    """Parameters of the row that the service does not take, so that they were not sent."""
    warnings: tuple[str, ...] = ()
    stages: dict[str, float] = {}
    """Seconds by stage for the whole batch; on the first result of a batch only."""
    cache: dict[str, int | str] = {}
    """With a step cache: `steps`, those `computed` in full, and the `pattern` of them, 1 for computed."""
    progressive: dict[str, int] = {}
    """With first steps at a smaller size: how many `steps`, and its `width` and `height`."""
    work: dict[str, int] = {}
    """Blocks evaluated, graphs compiled, peak GPU memory: for the whole batch, on its first result only."""
    usage: dict[str, int] = {}
    """Tokens, as the service counted them."""
    cost: float = 0.0
    """USD, over all attempts."""
    receipt: str = ""
    """Names what `cost` is for, so that it is booked once, although a run that was killed has the same answer again. Of
    durable backends only (`Settings.durable`), and not in the journal."""
    files: tuple[FileStamp, ...] = ()
    """Stamps of the files at `paths`, as they were written; none in journals of version 0.1.0."""
    inputs: tuple[InputStamp, ...] = ()
    """Of `Request.read_paths`, as they were read."""

    @property
    def images(self) -> Images:
        """The images, read when they are asked for."""
        return Images(self.image_paths)

    @property
    def image_paths(self) -> tuple[str, ...]:
        """Absolute paths of the images. With -o s3://..., those that an earlier run has sent there are addresses."""
        return tuple(os.path.join(self.folder, path) for path in self.paths)

    @property
    def error(self) -> None:
        """Nothing failed."""
        return None


class Failed(_Told, frozen=True, tag="failed", tag_field="status", omit_defaults=True):
    """The result of a row that has none, and why.

    >>> import fastgen
    >>> settings = fastgen.resolve("t2i", out="bad", model="tiny", gpus="cpu")
    >>> [failed] = fastgen.generate(settings, rows=[{"prompt": "a fox", "size": "100x100"}])
    >>> failed.kind, failed.field
    ('input', 'size')
    >>> print(failed.error)
    row 1, field size: 100x100 is not divisible by 16; the nearest size is 96x96
    >>> failed.row["prompt"], len(failed.images)
    ('a fox', 0)
    """

    id: str
    kind: Kind
    message: str
    field: str = ""
    backend: str = ""
    model: str = ""
    content: str = ""
    attempts: int = 1
    """0 if a backend sends it back without having started."""
    retry_after: float = 0.0
    """Seconds that the service asked to wait; 0 if it did not say."""
    cost: float = 0.0
    """USD that the attempts cost or, if that is unknown (no reply in time), the most that they may have cost."""
    answer: str = ""
    """The text that came instead of an answer, whole, since it may have been paid for."""
    receipt: str = ""
    """As of `Done`."""
    inputs: tuple[InputStamp, ...] = ()
    """Of `Request.read_paths`, as they were read."""

    @property
    def images(self) -> Images:
        """None were made."""
        return Images(())

    @property
    def image_paths(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def error(self) -> str:
        """Why there is no result: the message."""
        return self.message


Result = Done | Failed


def warm(*kinds: type) -> None:
    """Have msgspec prepare to decode these now. A module calls it where it defines them, so that no two threads can be
    the first: msgspec 0.22 ends the process with SIGSEGV then, now and then (bench/LOG.md)."""
    for kind in kinds:
        msgspec.json.Decoder(kind)


warm(Request, Batch, Done, Failed)
