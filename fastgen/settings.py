"""What the user asked for, checked and made definite. After `resolve` nothing is left to guess."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import msgspec

from fastgen import hardware
from fastgen.errors import SettingsError
from fastgen.hardware import Device
from fastgen.models import FAKE, ModelCard, resolve_model, stamp
from fastgen.profile import Profile, choose
from fastgen.types import Task

FORMATS = ("png", "jpeg", "webp")
DTYPES = ("float32", "bfloat16", "float16")
_DTYPE_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", **{d: d for d in DTYPES}}
OUTPUT_KEYS = {"t2i": "images", "edit": "edited_images"}
PROMPT_FIELDS = ("prompt", "conversations", "conversation")
IMAGE_FIELDS = ("images", "image")
PARAM_FIELDS = ("size", "width", "height", "steps", "guidance", "seed", "n")
MAX_SEED = 2**53 - 1
"""Every JSON reader keeps integers up to here exact."""
MAX_SIDE = 8192
MAX_STEPS = 1000
MAX_N = 256


class Settings(msgspec.Struct, frozen=True):
    """A run, resolved. Build it with `resolve`."""

    task: Task
    input: str
    """The file of rows; "" when rows come from Python."""
    out: str
    backend: str
    model: ModelCard
    devices: tuple[Device, ...]
    profile: Profile
    size: tuple[int, int] | None
    """(width, height) for rows that name none; None: an edit takes its input's shape."""
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
    limit: int
    """0: all rows."""
    fresh: bool
    retry_failed: bool
    notes: tuple[str, ...]
    """What the user should be told before the run."""

    def fingerprint(self) -> dict:
        """The settings that change results: a run folder belongs to one such set."""
        return {
            "task": self.task, "backend": self.backend, "model": self.model.name,
            "model_files": self.model.fingerprint,
            "transformer": f"{self.transformer} ({stamp(Path(self.transformer))})" if self.transformer else "",
            "lora": [f"{path}:{scale} ({stamp(Path(path))})" for path, scale in self.loras], "dtype": self.dtype,
            "size": "x".join(map(str, self.size)) if self.size else "from the input", "steps": self.steps,
            "guidance": self.guidance, "n": self.n, "seed": self.seed, "format": self.format,
            "max_sequence_length": self.max_sequence_length, "output_key": self.output_key,
            "image_root": self.image_root if self.task == "edit" else "",
        }  # fmt: skip

    def batch_for(self, pixels: int) -> int:
        """How many samples of that many pixels go through the model together."""
        return self.batch_size or self.profile.batch_for(pixels)


def resolve(
    task: Task,
    input: str | os.PathLike | None = None,
    *,
    out: str | os.PathLike | None = None,
    model: str = "auto",
    backend: str = "local",
    gpus: str = "",
    size: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    n: int = 1,
    seed: int = 0,
    dtype: str = "auto",
    batch_size: int | str = "auto",
    format: str = "png",
    output_key: str | None = None,
    image_root: str | os.PathLike | None = None,
    lora: tuple[str, ...] | list[str] = (),
    transformer: str | None = None,
    max_sequence_length: int | None = None,
    limit: int | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
) -> Settings:
    """Check what was asked for against this machine and the model, and fill in every default.

    The names are those of the command line. `input` None means that the rows come from Python.

    Raises:
        SettingsError: something cannot be honoured; the message names the flag and the mend.
    """
    if task not in OUTPUT_KEYS:
        raise SettingsError(f"task {task!r}: one of {', '.join(OUTPUT_KEYS)}")
    if backend not in ("local", "fake"):
        raise SettingsError(f"--backend {backend}: the only one is 'local'")
    gpu_list = hardware.find_gpus()
    devices = hardware.resolve_devices(gpus, gpu_list)
    on_gpu = devices[0].kind == "cuda"
    card, notes = (FAKE, []) if backend == "fake" else resolve_model(model, task, on_gpu)
    defaults = card.defaults
    path = _check_input(input)

    number("--n", n, 1, MAX_N)
    number("--seed", seed, 0, MAX_SEED)
    dtype = _DTYPE_NAMES.get("bf16" if on_gpu else "fp32") if dtype == "auto" else _DTYPE_NAMES.get(dtype.lower(), "")
    if not dtype:
        raise SettingsError(f"--dtype: one of auto, {', '.join(_DTYPE_NAMES)}")
    if dtype == "float16" and not on_gpu:
        notes.append("--dtype float16 on a CPU runs 5 to 7 times slower than bfloat16 or float32")
    format = {"jpg": "jpeg"}.get(format.lower(), format.lower())
    if format not in FORMATS:
        raise SettingsError(f"--format {format}: one of {', '.join(FORMATS)}")
    batch = 0
    if str(batch_size) != "auto":
        if not (str(batch_size).isascii() and str(batch_size).isdigit()):
            raise SettingsError(f"--batch-size {batch_size}: a whole number from 1 to 1024, or auto")
        batch = number("--batch-size", int(batch_size), 1, 1024)
    key = output_key if output_key is not None else OUTPUT_KEYS[task]
    taken = {"id", "fastgen", "mask", *PROMPT_FIELDS, *PARAM_FIELDS, *(IMAGE_FIELDS if task == "edit" else ())}
    if not key or key in taken:
        raise SettingsError(
            f"--output-key {key!r}: that field is read or written by fastgen itself; choose another name"
        )

    wanted_size = None
    if size is not None:
        try:
            wanted_size = parse_size(size)
            check_size(*wanted_size, card)
        except ValueError as error:
            raise SettingsError(f"--size {size}: {error}") from None
    elif task == "t2i":
        wanted_size = (defaults.width, defaults.height)
    longest = defaults.max_sequence_length if max_sequence_length is None else max_sequence_length
    root = image_root if image_root is not None else _default_root(path)
    if not Path(root).is_dir():
        raise SettingsError(f"--image-root {root}: no such folder")
    return Settings(
        task=task,
        input=str(path.resolve()) if path else "",
        out=str(Path(out if out is not None else Path("fastgen-runs") / task).expanduser().absolute()),
        backend=backend,
        model=card,
        devices=devices,
        profile=choose(card.family, card.name, devices[0]),
        size=wanted_size,
        steps=number("--steps", defaults.steps if steps is None else steps, 1, MAX_STEPS),
        guidance=real("--guidance", defaults.guidance if guidance is None else guidance),
        n=n,
        seed=seed,
        dtype=dtype,
        batch_size=batch,
        format=format,
        output_key=key,
        image_root=str(Path(root).resolve()),
        loras=tuple(_parse_lora(text) for text in lora),
        transformer=_check_transformer(transformer),
        max_sequence_length=number("--max-sequence-length", longest, 1, 512),
        limit=0 if limit is None else number("--limit", limit, 1, 2**62),
        fresh=fresh,
        retry_failed=retry_failed,
        notes=tuple(notes),
    )


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


def _default_root(path: Path | None) -> Path:
    """The folder of INPUT; for the failures.jsonl of a run, where that run's rows had their pictures."""
    if path is None:
        return Path.cwd()
    if path.name == "failures.jsonl":
        try:
            root = json.loads((path.parent / "run.json").read_text("utf-8"))["settings"]["image_root"]
            return Path(root) if root else path.parent
        except (OSError, ValueError, KeyError, TypeError):
            pass
    return path.parent


def _check_input(input: str | os.PathLike | None) -> Path | None:
    if input is None:
        return None
    path = Path(input).expanduser()
    if path.is_dir():
        raise SettingsError(f"INPUT {path}: is a folder; give a .jsonl or .json file of rows")
    if not path.exists():
        raise SettingsError(f"INPUT {path}: no such file")
    if path.suffix.lower() not in (".jsonl", ".json"):
        raise SettingsError(f"INPUT {path}: the name must end in .jsonl (a row a line) or .json (a list of rows)")
    if not os.access(path, os.R_OK):
        raise SettingsError(f"INPUT {path}: not readable; check its permissions")
    if path.stat().st_size == 0:
        raise SettingsError(f"INPUT {path}: the file is empty; it needs one JSON object a row")
    return path


def _parse_lora(text: str) -> tuple[str, float]:
    path, colon, scale = text.rpartition(":")
    value = 1.0
    if colon:
        try:
            value = float(scale)
        except ValueError:
            path = text  # the colon belongs to the path
        if not math.isfinite(value):
            raise SettingsError(f"--lora {text}: the scale after ':' must be a finite number")
    else:
        path = text
    file = Path(path).expanduser()
    if not file.is_file():
        raise SettingsError(f"--lora {text}: no such file; give PATH or PATH:SCALE of a .safetensors file")
    return str(file.resolve()), value


def _check_transformer(text: str | None) -> str:
    if not text:
        return ""
    path = Path(text).expanduser()
    if not path.is_file() or path.suffix != ".safetensors":
        raise SettingsError(f"--transformer {text}: no such .safetensors file")
    return str(path.resolve())
