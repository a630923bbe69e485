"""What the user asked for, made definite: the nouns, and checks of single values. `resolver.py` fills them in."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fastgen.config.hardware import Device
from fastgen.config.model_cards import ModelCard, stamp
from fastgen.config.optimizations import Speed
from fastgen.config.profile import Profile
from fastgen.config.prompts import MAX_PIXELS, PROMPT, SYSTEM
from fastgen.errors import SettingsError
from fastgen.types import Task

FORMATS = ("png", "jpeg", "webp")
DTYPES = ("float32", "bfloat16", "float16")
DTYPE_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", **{d: d for d in DTYPES}}
OUTPUT_KEYS = {"t2i": "images", "edit": "edited_images", "caption": "caption"}
BACKENDS = {
    "t2i": ("local", "openai", "gemini"),
    "edit": ("local", "openai", "gemini"),
    "caption": ("vllm", "openai", "gemini"),
}
"""The first is the default."""
PROMPT_FIELDS = ("prompt", "conversations", "conversation")
IMAGE_FIELDS = ("images", "image")
PARAM_FIELDS = ("size", "width", "height", "steps", "guidance", "seed", "n")
API_OPTIONS = ("quality", "background", "aspect_ratio", "resolution")
"""What only APIs understand; of `quality` the engine on this machine has words of its own,
`optimizations.QUALITIES`."""
MAX_SEED = 2**53 - 1
"""Every JSON reader keeps integers up to here exact."""
MAX_SIDE = 8192
MAX_STEPS = 1000
MAX_N = 256


class Text(msgspec.Struct, frozen=True):
    """How texts are made."""

    prompt: str = PROMPT
    """For rows that say nothing."""
    system: str = SYSTEM
    max_tokens: int = 512
    temperature: float = 0.0
    max_pixels: int = MAX_PIXELS
    schema: str = ""
    """A JSON schema as JSON; "" for free text."""


class Endpoint(msgspec.Struct, frozen=True):
    """A service that is reached over HTTP."""

    base_url: str = ""
    """"": the vendor's own, or for vLLM a server of our own."""
    key_name: str = ""
    """The environment variable that holds the key; never the key itself."""
    max_inflight: int = 0
    """Requests at the same time, at most."""
    rpm: int = 0
    """Requests a minute, at most; 0: as many as it takes."""
    timeout_s: float = 0.0
    """For one request."""
    command: tuple[str, ...] = ()
    """vLLM's server as a program, to which its arguments are added."""


class Settings(msgspec.Struct, frozen=True):
    """A run, resolved. Build it with `fastgen.resolve`."""

    task: Task
    input: str
    """The file of rows, or a folder of pictures; "" when rows come from Python."""
    out: str
    backend: str
    model: ModelCard
    devices: tuple[Device, ...]
    profile: Profile
    size: tuple[int, int] | None
    """(width, height) for rows that name none; None: an edit takes its input's shape, an API decides."""
    steps: int
    guidance: float
    n: int
    seed: int
    dtype: str
    batch_size: int
    """0: the profile decides by size."""
    format: str
    output_key: str
    image_root: str
    loras: tuple[tuple[str, float], ...]
    transformer: str
    max_sequence_length: int
    speed: Speed
    """How the engine on this machine runs the model."""
    limit: int
    """0: all rows."""
    fresh: bool
    retry_failed: bool
    api_options: dict[str, str]
    """Of `API_OPTIONS` those that are set, for rows that do not say."""
    text: Text
    endpoint: Endpoint
    fallbacks: tuple[Settings, ...]
    """Where a row goes next when this backend cannot do it, in this order; each differs in the backend only."""
    fallback_on_refusal: bool
    max_cost: float
    """USD that this run folder may cost; 0: no limit."""
    notes: tuple[str, ...]
    """What the user should be told before the run."""

    @property
    def route(self) -> tuple[Settings, ...]:
        return (self, *self.fallbacks)

    @property
    def is_remote(self) -> bool:
        """Whether this backend is an endpoint: one request at a time each, many at once."""
        return self.backend in ("vllm", "openai", "gemini")

    def fingerprint(self) -> dict:
        """The settings that change results: a run folder belongs to one such set. Fallbacks may come and go: every row
        says who served it."""
        same = {
            "task": self.task,
            "backend": self.backend,
            "model": self.model.name,
            "model_files": self.model.fingerprint,
        }
        last = {
            "seed": self.seed,
            "output_key": self.output_key,
            "image_root": self.image_root if self.task != "t2i" else "",
        }
        if self.task == "caption":
            return same | msgspec.structs.asdict(self.text) | last
        return (
            same
            | {
                "transformer": f"{self.transformer} ({stamp(Path(self.transformer))})" if self.transformer else "",
                "lora": [f"{path}:{scale} ({stamp(Path(path))})" for path, scale in self.loras],
                "dtype": self.dtype,
                "size": "x".join(map(str, self.size)) if self.size else "by row",
                "steps": self.steps,
                "guidance": self.guidance,
                "n": self.n,
                "format": self.format,
                "max_sequence_length": self.max_sequence_length,
                **self.api_options,
                **(self.speed.changes_pictures() if self.backend == "local" else {}),
            }
            | last
        )

    def engine(self) -> tuple:
        """What an engine is opened with: equal where one can go on with another run. All that comes with each request,
        or only says what becomes of it, is left out."""
        same = msgspec.structs.replace(
            self,
            task="t2i",
            input="",
            out="",
            size=None,
            steps=0,
            guidance=0.0,
            n=1,
            seed=0,
            batch_size=0,
            format="",
            output_key="",
            image_root="",
            limit=0,
            fresh=False,
            retry_failed=False,
            api_options={},
            text=Text(),
            fallbacks=(),
            fallback_on_refusal=False,
            max_cost=0.0,
            notes=(),
            speed=msgspec.structs.replace(self.speed, why={}),
        )
        files = [path for path in (self.transformer, *(path for path, _ in self.loras)) if path]
        return same, [stamp(Path(path)) for path in files]

    def batch_for(self, pixels: int) -> int:
        """How many samples of that many pixels go through the model together."""
        return 1 if self.is_remote else self.batch_size or self.profile.batch_for(pixels)


def number(flag: str, value: int, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SettingsError(f"{flag} {value}: a whole number from {least} to {most}")
    return value


def real(flag: str, value: float) -> float:
    # A comparison with NaN is false, and one with an integer of any length is exact.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 100:
        raise SettingsError(f"{flag} {value}: a number from 0 to 100")
    return float(value)


def parse_size(text: str) -> tuple[int, int]:
    """ "512x768" as (512, 768), width first. Raises ValueError."""
    text = text.replace("×", "x")
    width, x, height = text.lower().partition("x")
    if not (x and text.isascii() and width.strip().isdigit() and height.strip().isdigit()):
        raise ValueError("write it as WIDTHxHEIGHT in pixels, such as 1024x768")
    return int(width), int(height)


def check_size(width: int, height: int, card: ModelCard) -> None:
    """Raise ValueError where the model cannot make a picture of that size; says the nearest one that it can."""
    grid = card.grid
    if width < grid or height < grid:
        raise ValueError(f"each side must be at least {grid} pixels")
    if max(width, height) > MAX_SIDE or width * height > card.defaults.max_pixels:
        raise ValueError(
            f"{width}x{height} is {width * height / 1e6:,.1f} megapixels; the most is "
            f"{card.defaults.max_pixels / 1e6:.1f} megapixels and {MAX_SIDE} pixels a side"
        )
    if width % grid or height % grid:
        near = "x".join(str(max(grid, round(side / grid) * grid)) for side in (width, height))
        raise ValueError(f"{width}x{height} is not divisible by {grid}; the nearest size is {near}")
