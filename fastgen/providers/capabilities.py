"""What flags and rows ask of a backend -> why that cannot be, before anything is sent. Of unknown models nothing is
refused but words that the API's format does not have, which would be dropped without a word."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fastgen.config.optimizations import QUALITIES
from fastgen.config.settings import API_OPTIONS, Settings
from fastgen.providers.catalog import NAMES, Model, as_of, find
from fastgen.types import ImageParams, Request, TextParams

WORDS = {"openai": ("quality", "background"), "gemini": ("aspect_ratio", "resolution")}
"""Which of `API_OPTIONS` the format of an API has."""
PIXELS = {"512": 512**2, "1K": 1024**2, "2K": 2048**2, "4K": 4096**2}


def refuse_flags(settings: Settings) -> str:
    """Why the flags cannot be honoured by this backend and model; "" if they can."""
    if settings.task != "caption":
        width, height = settings.size or (0, 0)
        params = ImageParams(
            width, height, settings.steps, settings.guidance, settings.seed, settings.n, **settings.api_options
        )
        if reason := _refuse_params(settings, params, "--"):
            return reason
    if settings.backend not in NAMES:
        return ""
    for flag, given in (("--lora", settings.loras), ("--transformer", settings.transformer)):
        if given:
            return f"{flag}: only the engine on this machine takes weights (--backend local)"
    model = find(settings.backend, settings.model.name)
    if model and model.tasks and settings.task not in model.tasks:
        return f"--model {settings.model.name}: is for {' and '.join(model.tasks)}, not for {settings.task}"
    if settings.backend == "gemini" and settings.task != "caption" and settings.format != "png":
        return f"--format {settings.format}: Gemini decides on that itself; leave --format out"
    return ""


def refuse(settings: Settings, request: Request) -> str:
    """Why this request cannot be done by this backend and model; "" if it can, or nobody knows."""
    if isinstance(request.params, TextParams):
        return ""
    if reason := _refuse_params(settings, request.params, ""):
        return reason
    model = find(settings.backend, settings.model.name) if settings.backend in NAMES else None
    if model is None:
        return ""
    name = settings.model.name
    pictures = len(request.images) + bool(request.mask and model.mask == "emulated")
    if model.most_pictures and pictures > model.most_pictures:
        return f"{len(request.images)} pictures; {name} takes {model.most_pictures} at most" + (
            ", and the mask is one of them" if pictures > len(request.images) else ""
        )
    if request.mask and model.mask == "no":
        return f"mask: {name} takes none; leave it out or use --backend local"
    if model.most_prompt and (longest := max(map(len, request.prompts), default=0)) > model.most_prompt:
        return f"the prompt has {longest:,} characters; {name} takes {model.most_prompt:,} at most"
    return ""


def _refuse_params(settings: Settings, params: ImageParams, dash: str) -> str:
    """`dash`: what stands before the names in the message, "--" for flags."""
    words = {w: v for w in API_OPTIONS if (v := getattr(params, w)) not in ("", "auto")}
    backend, name = settings.backend, settings.model.name

    def called(word: str) -> str:
        return dash + word.replace("_", "-") if dash else word

    if backend not in NAMES:
        for word, value in words.items():
            if backend == "local" and word == "quality":
                if value == settings.speed.quality:
                    continue
                mend = f"all rows of a run are made at one; this run's is {settings.speed.quality} (--quality)"
                if value not in QUALITIES:
                    mend = f"the engine on this machine knows {', '.join(QUALITIES)}; for {value} use --backend openai"
                return f"{called(word)} {value}: {mend}"
            return f"{called(word)} {value}: only APIs know it; leave it out or use --backend openai or gemini"
        return ""
    model = find(backend, name) or Model()
    size = (params.width, params.height) if params.width and params.height else None
    for word in words.keys() - set(WORDS[backend]):
        if word == "aspect_ratio" and size and _same_shape(words[word], size):
            continue
        instead = {"aspect_ratio": "size", "resolution": "size"}.get(word)
        mend = f"say {called(instead)}, such as 1536x1024" if instead else "leave it out, or say it in the prompt"
        return f"{called(word)} {words[word]}: {NAMES[backend]}'s format has no word for it; {mend}"
    known = {
        "quality": model.qualities,
        "background": model.backgrounds,
        "aspect_ratio": model.aspect_ratios,
        "resolution": model.resolutions,
    }
    for word, value in words.items():
        if known[word] and value not in known[word] and word in WORDS[backend]:
            return f"{called(word)} {value}: {name} knows {', '.join(known[word])} (as of {as_of()})"
    if backend == "openai":
        if params.background == "transparent" and settings.format == "jpeg":
            return f"{called('background')} transparent: JPEG has no transparency; use --format png or webp"
        if model.formats and settings.format not in model.formats:
            return f"--format {settings.format}: {name} gives {', '.join(model.formats)}"
        return _refuse_size(model, name, size, called("size")) if size else ""
    if size and not shape(settings, params)[0]:
        return (
            f"{called('size')} {size[0]}x{size[1]}: {NAMES[backend]} takes no sizes, and none of its shapes is near "
            f"this one; say {called('aspect_ratio')} ({', '.join(model.aspect_ratios)})"
        )
    if size and "aspect_ratio" in words and not _same_shape(words["aspect_ratio"], size):
        return (
            f"{called('size')} {size[0]}x{size[1]} is not {called('aspect_ratio')} {words['aspect_ratio']}; "
            "leave one out"
        )
    return ""


def _refuse_size(model: Model, name: str, size: tuple[int, int], word: str) -> str:
    text = f"{size[0]}x{size[1]}"
    if model.sizes and text not in model.sizes:
        return f"{word} {text}: {name} makes {', '.join(model.sizes)} (as of {as_of()})"
    reason = model.rule.refuse(*size) if model.rule else ""
    return f"{word} {text}: {reason} ({name}, as of {as_of()})" if reason else ""


def _ratio(text: str) -> float:
    width, _, height = text.partition(":")
    try:
        return float(width) / float(height)
    except (ValueError, ZeroDivisionError):
        return 0.0


def _same_shape(ratio: str, size: tuple[int, int]) -> bool:
    return abs(_ratio(ratio) / (size[0] / size[1]) - 1) <= 0.02


def shape(settings: Settings, params: ImageParams) -> tuple[str, str]:
    """(aspect ratio, resolution) for an API that takes no sizes: as asked for, else those of the size asked for."""
    ratio, resolution = (value if value != "auto" else "" for value in (params.aspect_ratio, params.resolution))
    if not (params.width and params.height):
        return ratio, resolution
    model = find(settings.backend, settings.model.name)
    size = (params.width, params.height)
    ratios: Iterable[str] = (model.aspect_ratios if model else ()) or (f"{size[0]}:{size[1]}",)
    ratio = ratio or next((one for one in ratios if _same_shape(one, size)), "")
    known = [one for one in (model.resolutions if model else ()) if one in PIXELS] or ["1K", "2K", "4K"]
    # 3840x2160 lies halfway between two of them, and is called 4K.
    nearest = min(known, key=lambda one: abs(math.log(PIXELS[one] / (size[0] * size[1]) / 1.05)))
    return ratio, resolution or nearest
