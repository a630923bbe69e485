"""How one kind of hardware runs a model: data from `kernels_cfg/*.toml`, never code. Imports no torch.

A profile has [match] (family, model, device, compute_capability, least_memory_gib), [batch] (size -> samples that go
through the model together; a size not listed takes the next larger one, beyond the last it is 1) or, for a VLM that
vLLM serves, [serve]; [opt.exact], [opt.high] and [opt.fast] (what --quality chooses: `optimizations.Options`);
[compile] (when compiling pays); [rate] (how fast it is, for estimates); and [measured]. To add a GPU, add a file.
"""

from __future__ import annotations

import json
import os
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from fastgen.config.hardware import Device
from fastgen.config.optimizations import QUALITIES, Sets
from fastgen.errors import SettingsError
from fastgen.types import warm

_HERE = Path(__file__).parents[1]
FOLDER = _HERE / "kernels_cfg" if (_HERE / "kernels_cfg").is_dir() else _HERE.parent / "kernels_cfg"


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which hardware and model a profile is for. A field that is left out matches everything."""

    family: str = "*"
    model: str = "*"
    device: str = "*"
    """"cuda" or "cpu"."""
    compute_capability: str = "*"
    least_memory_gib: float = 0.0

    def explain(self) -> str:
        said = [f"{k} {v}" for k, v in msgspec.structs.asdict(self).items() if v not in ("*", 0.0)]
        return ", ".join(said) or "anything"


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the figures come from. Profiles that are `unmeasured` are conservative, and say so when they are used."""

    status: str
    """"measured" or "unmeasured"."""
    date: str = ""
    hardware: str = ""
    command: str = ""
    note: str = ""


class Serve(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How vLLM serves a VLM here. What is 0 or empty is left to vLLM."""

    model: str = ""
    """What --model auto is."""
    max_inflight: int = 0
    """Requests in flight that keep it busy."""
    max_pixels: int = 0
    """Larger images are scaled down to this before they are sent."""
    dtype: str = ""
    quantization: str = ""
    """Such as "fp8"."""
    max_model_len: int = 0
    max_num_seqs: int = 0
    max_num_batched_tokens: int = 0
    gpu_memory_utilization: float = 0.0
    kv_cache_memory_bytes: str = ""
    api_server_count: int = 0
    mm_processor_cache_gb: float = -1.0
    """-1 leaves it to vLLM; 0 is right for images that do not repeat. Where the rows of a run are known to repeat
    them, 0 does not count."""
    images_per_prompt: int = 0
    """At least; more if rows of the run have more."""
    enforce_eager: bool = False
    arguments: tuple[str, ...] = ()
    """More arguments for vLLM's command line."""
    environment: dict[str, str] = {}


class Payback(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """[compile]: what `compile = "auto"` decides by. 0 means unknown, and then it does not compile."""

    cost_s: float = 0.0
    """Seconds that compiling takes at the start, without code from an earlier one."""
    saved_s: float = 0.0
    """Seconds that compiled blocks save per step and megapixel."""


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """[rate]: megapixels of images times steps per second, by quality, of one GPU or of all cores of a CPU. Other sizes
    and steps than those that were measured make it less true. 0 means not measured."""

    exact: float = 0.0
    high: float = 0.0
    fast: float = 0.0


class Profile(msgspec.Struct, frozen=True):
    name: str
    why: str
    batch: tuple[tuple[int, int], ...]
    """(pixels up to, samples), ascending."""
    measured: Measured
    serve: Serve = Serve()
    opt: Sets = Sets()
    compile: Payback = Payback()
    rate: Rate = Rate()

    def batch_for(self, pixels: int) -> int:
        return next((samples for most, samples in self.batch if pixels <= most), 1)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    match: Match
    measured: Measured
    batch: dict[str, int] = {}
    serve: Serve = Serve()
    opt: Sets = Sets()
    compile: Payback = Payback()
    rate: Rate = Rate()


warm(_File, Profile)


def load(path: Path, said: str = "") -> tuple[Match, Profile]:
    """Read and check one profile. `said`: how messages name it.

    Raises:
        SettingsError: it names the file and the bad key.
    """
    said = said or f"profile {path.name}"
    try:
        raw = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File)
        batch = tuple(sorted((pixels(size), samples) for size, samples in raw.batch.items()))
        if (not batch and raw.serve == Serve()) or any(samples < 1 for _, samples in batch):
            raise ValueError("[batch] needs sizes such as 512x512 with at least 1 sample each (or, for a VLM, [serve])")
        if raw.measured.status not in ("measured", "unmeasured"):
            raise ValueError("[measured] status must be 'measured' or 'unmeasured'")
        if raw.measured.status == "measured" and not (
            raw.measured.date and raw.measured.hardware and raw.measured.command
        ):
            raise ValueError("[measured] needs date, hardware and command")
    except UnicodeDecodeError:
        raise SettingsError(f"{said}: not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{said}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # msgspec's and tomllib's are ValueErrors too
        raise SettingsError(f"{said}: {error}; see the profiles in {FOLDER}") from None
    more = (raw.serve, raw.opt, raw.compile, raw.rate)
    return raw.match, Profile(path.stem, raw.match.explain(), batch, raw.measured, *more)


def pixels(size: str) -> int:
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f"[batch] {size}: write a size as 512x512")
    return int(width) * int(height)


def dump(match: Match, batch: dict[str, int], sets: Sets, measured: Measured, rate: Rate = Rate()) -> str:  # noqa: B008
    """A profile as TOML. Batch sizes go by size, such as "512x512"."""
    tables = {
        "match": match,
        "batch": batch,
        **{f"opt.{word}": getattr(sets, word) for word in QUALITIES},
        "rate": rate,
        "measured": measured,
    }
    text = []
    for name, table in tables.items():
        plain = type(table)() if name != "measured" and not isinstance(table, dict) else None
        values = table if isinstance(table, dict) else msgspec.structs.asdict(table)
        # JSON strings, numbers and booleans are valid TOML too.
        lines = [
            f"{_key(key)} = {json.dumps(value)}"
            for key, value in values.items()
            if plain is None or value != getattr(plain, key)
        ]
        if lines:
            text += [f"[{name}]", *lines, ""]
    return "\n".join(text)


def _key(name: str) -> str:
    return name if name.isidentifier() else json.dumps(name)


def from_file(path: str | os.PathLike) -> Profile:
    """The profile that --profile names, regardless of its [match]. Raises SettingsError."""
    file = Path(path).expanduser()
    if not os.path.isfile(file):  # Path.is_file raises OSError for a name that is too long
        raise SettingsError(f"--profile {path}: no such file; give a TOML like those in {FOLDER}")
    return msgspec.structs.replace(load(file, f"--profile {path}")[1], why=f"--profile {path}")


def choose(family: str, model: str, device: Device) -> Profile:
    """The most specific profile that matches; among equals the one for most memory, then the one measured last;
    `default.toml` if none matches."""
    gpu = device.gpu
    best: Profile | None = None
    best_score: tuple = ()
    for path in sorted(FOLDER.glob("*.toml")):
        match, profile = load(path)
        checks = [
            (match.family, fnmatch(family, match.family)),
            (match.model, fnmatch(model, match.model)),
            (match.device, fnmatch(device.kind, match.device)),
            (match.compute_capability, fnmatch(gpu.compute_capability if gpu else "", match.compute_capability)),
        ]
        if not all(ok for _, ok in checks) or (gpu.memory_gib if gpu else 0.0) < match.least_memory_gib:
            continue
        fit = sum(pattern != "*" for pattern, _ in checks) + (match.least_memory_gib > 0)
        score = (fit, match.least_memory_gib, profile.measured.status == "measured", profile.measured.date)
        if score > best_score:
            best, best_score = profile, score
    if best is None:
        raise SettingsError(f"no profile in {FOLDER} matches; default.toml is missing")
    return best
