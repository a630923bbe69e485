"""What is compared, with names that can be used on the command line: `plain`, `quantize 8bit`, `compile + cache
first-block`, `quality high`.

Pure: does not know processes and measures nothing.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from fastgen.config import backends, optimizations, replicas
from fastgen.config.payback import NEED_IT
from fastgen.config.profile import Serve
from fastgen.config.prompts import MAX_PIXELS
from fastgen.config.settings import Settings
from fastgen.errors import SettingsError
from fastgen.resolver import progressive, sharding
from fastgen.resolver.fitting import refit

OPPONENTS = {"t2i": "diffusers", "edit": "diffusers", "caption": "transformers"}
"""The baseline of the ratios, by task."""
SINGLES = (
    "fuse_qkv",
    "norm_rope",
    "cuda_graphs",
    "compile",
    "attention cudnn",
    "attention flash",
    "attention flash3",
    "attention flash3_hub",
    "attention flash4",
    "attention sage",
    "attention xformers",
    "quantize 8bit",
    "quantize 4bit",
    "quantize fp8",
    "quantize int8",
    "quantize mxfp8",
    "quantize nvfp4",
    "quantize text:8bit",
    "cache first-block",
    "cache taylorseer",
    "progressive 0.5",
    "offload text",
    "offload model",
    "offload group",
)
"""Each optimization alone, if it has a value of its own."""
SWITCHES = ("compile", "fuse_qkv", "norm_rope", "cuda_graphs")
NEEDS_COMPILE = tuple(f"quantize {kind}" for kind in NEED_IT)
"""On a GPU they are refused without compilation."""


CAPTIONER = backends.names("caption")[0]
SPLIT = ("parallel shard", "parallel context")
"""With --gpus-per-replica; all other arms run on the first device alone."""
CHOICES = (*optimizations.Options.__struct_fields__, optimizations.Shard.flag)
ONE_AT_A_TIME, WITHOUT = "one at a time", "without"
SERVED = ("quantization", "max_num_batched_tokens", "api_server_count", "mm_processor_cache_gb", "max_pixels")
"""What a profile sets in vLLM for speed. One arm leaves each of them to vLLM, since most mean nothing alone."""


class Arm(msgspec.Struct, frozen=True):
    name: str
    settings: Settings
    """How it makes its images or texts; a baseline reads from it what must be the same: model, type, steps ..."""
    player: str = "fastgen"
    """What makes them: fastgen, or the name of a baseline."""
    refused: str = ""
    """Why it cannot run here; it is listed and not run."""
    asked_for: bool = False
    """Whether --only named it. If not, and it turns out not to work on this hardware, it counts as refused, not as
    failed."""
    same_as: str = ""
    """The arm with the same choices; this one is listed and not run."""


def arms(settings: Settings, only: tuple[str, ...] = ()) -> list[Arm]:
    """The baseline, then the arms that are named, or all.

    Args:
        settings: a task without optimizations of its own.
        only: names; () for all.

    Raises:
        SettingsError: a name is unknown.
    """
    opponent = OPPONENTS[settings.task]
    found = [Arm(opponent, replace(_on_one(settings), optimizations=optimizations.Optimizations()), opponent)]
    for name in dict.fromkeys(only or names(settings)):
        if name == opponent:
            continue
        arm = replace(_arm(name, settings), asked_for=bool(only))
        same = next((a.name for a in found[1:] if _choices(a) == _choices(arm) and not a.refused), "")
        found.append(replace(arm, same_as=same) if same and not only else arm)
    return found


def names(settings: Settings) -> list[str]:
    """All arms for a task."""
    if settings.task == "caption":
        set_here = [
            name for name in SERVED if getattr(settings.placement.profile.serve, name) != getattr(Serve(), name)
        ]
        return [CAPTIONER, ONE_AT_A_TIME, *(f"{WITHOUT} {name}" for name in set_here)]
    on_gpu = settings.placement.devices[0].gpu is not None
    singles = [f"compile + {name}" if on_gpu and name in NEEDS_COMPILE else name for name in SINGLES]
    split = SPLIT if settings.placement.devices[0].size > 1 else ()
    return ["plain", *split, *singles, *(f"quality {word}" for word in optimizations.QUALITIES)]


def _on_one(settings: Settings) -> Settings:
    """The same on the first device of a replica alone."""
    devices = (replicas.first(settings.placement.devices[0]),)
    return replace(settings, placement=replace(settings.placement, devices=devices))


def _choices(arm: Arm) -> object:
    if arm.settings.task == "caption":
        return arm.name
    return replace(arm.settings.optimizations, quality="", why={})


def _arm(name: str, settings: Settings) -> Arm:
    if settings.task == "caption":
        return _caption_arm(name, settings)
    quality, words = parse(name)
    chosen = optimizations.resolve(
        quality,
        settings.placement.profile.opt if quality else optimizations.Sets(),
        f"profile '{settings.placement.profile.name}'",
        words,
    )
    if chosen.shard.is_plain:
        settings = _on_one(settings)
    elif settings.placement.devices[0].size == 1:
        raise SettingsError(f"--only {name}: needs replicas of several devices; add --gpus-per-replica 2")
    fixed = {} if quality and not words else dict.fromkeys(("quantize", "compile"), f"--only {name}")
    try:
        progressive.check(settings.task, settings.model, chosen)
        sharding.check_heads(settings.model, chosen, settings.placement.devices)
        # An arm is what it says; only where weights are may follow from the memory of the GPU.
        return Arm(name, refit(settings, chosen, fixed | dict.fromkeys(words, f"--only {name}")))
    except SettingsError as error:
        return Arm(name, replace(settings, optimizations=chosen), refused=str(error))


def _caption_arm(name: str, settings: Settings) -> Arm:
    if name == CAPTIONER:
        return Arm(name, settings)
    if name == ONE_AT_A_TIME:
        return Arm(name, replace(settings, endpoint=replace(settings.endpoint, max_inflight=1)))
    word, _, key = name.partition(" ")
    if word != WITHOUT or key not in SERVED:
        raise SettingsError(
            f"--only {name}: for captions {CAPTIONER}, {ONE_AT_A_TIME}, or {WITHOUT} one of the profile's "
            f"{', '.join(SERVED)}"
        )
    serve = replace(settings.placement.profile.serve, **{key: getattr(Serve(), key)})
    profile = replace(settings.placement.profile, serve=serve)
    placement = replace(settings.placement, profile=profile)
    text = replace(settings.text, max_pixels=MAX_PIXELS) if key == "max_pixels" else settings.text
    return Arm(name, replace(settings, placement=placement, text=text))


def parse(name: str) -> tuple[str, dict]:
    """The meaning of a name: the value of --quality, or "", and those of `optimizations.Options`. Raises
    SettingsError."""
    quality = ""
    words: dict[str, str | bool] = {}
    for part in filter(None, (part.strip() for part in name.split("+"))):
        word, _, value = part.partition(" ")
        if part == "plain":
            continue
        if part in SWITCHES:
            words[part] = True
        elif word == "quality" and value in optimizations.QUALITIES:
            quality = value
        elif word in CHOICES and word not in SWITCHES and value:
            words[word] = value.strip()
        else:
            raise SettingsError(
                f"--only {name}: {part!r} is not an arm; write plain, quality high, or optimizations joined by '+', "
                "such as "
                f"'compile + cache first-block:0.1' ({', '.join(SINGLES)})"
            )
    return quality, words
