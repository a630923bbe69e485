"""What flags and rows ask of a backend -> the reason why it cannot be done, before anything is sent. For unknown models
the only thing refused is an option that the API's format does not have, because it would be dropped silently."""

from __future__ import annotations

import math
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from fastgen.config.backends import OPTIONS, Service
from fastgen.config.optimizations import QUALITIES
from fastgen.config.settings import Settings
from fastgen.providers.catalog import Model, as_of, find
from fastgen.types import ImageParams, Request, TextParams

PIXELS = {"512": 512**2, "1K": 1024**2, "2K": 2048**2, "4K": 4096**2}


def refuse_flags(settings: Settings) -> str:
    """Why this backend and model cannot honour the flags; "" if they can."""
    if settings.task != "caption":
        width, height = settings.image.size or (0, 0)
        options: dict[str, Any] = {**settings.image.options}
        params = ImageParams(
            width,
            height,
            settings.image.steps,
            settings.image.guidance,
            settings.rows.seed,
            settings.image.n,
            **options,
        )
        if reason := _refuse_params(settings, params, "--"):
            return reason
    service = settings.backend.service
    if service is None:
        return ""
    for flag, given in (("--lora", settings.engine.loras), ("--transformer", settings.engine.transformer)):
        if given:
            return f"{flag}: only the engine on this machine can use weights (--backend local)"
    model = _model(settings)
    if model and model.tasks and settings.task not in model.tasks:
        return f"--model {settings.model.name}: is for {' and '.join(model.tasks)}, not for {settings.task}"
    if service.picks_format and settings.task != "caption" and settings.image.format != "png":
        return f"--format {settings.image.format}: {service.title} chooses the format itself; leave --format out"
    return ""


def refuse(settings: Settings, request: Request) -> str:
    """Why this backend and model cannot do the request; "" if they can, or if it is unknown."""
    if isinstance(request.params, TextParams):
        return ""
    if reason := _refuse_params(settings, request.params, ""):
        return reason
    service = settings.backend.service
    if request.loras and service is not None:
        return "lora: only the engine on this machine can use weights (--backend local)"
    if request.keep_turns and len(request.prompts) > 1 and service is None:
        return "keep_turns: only services return the image of each turn; leave it out, or make each turn a row"
    if request.variation and not (service and service.makes_variations):
        return "use_variations: only OpenAI's format has an endpoint for variations; leave it out, and ask for an edit"
    if request.variation and settings.endpoint.batch_api:
        return "use_variations: a Batch API has none; leave --batch-api out, or ask for an edit"
    model = _model(settings)
    if model is None:
        return ""
    name = settings.model.name
    pictures = len(request.images) + bool(request.mask and model.mask == "emulated")
    if model.most_pictures and pictures > model.most_pictures:
        return f"{len(request.images)} images; {name} takes {model.most_pictures} at most" + (
            ", and the mask is one of them" if pictures > len(request.images) else ""
        )
    if request.mask and model.mask == "no":
        return f"mask: {name} does not support masks; leave it out or use --backend local"
    if model.most_prompt and (longest := max(map(len, request.prompts), default=0)) > model.most_prompt:
        return f"the prompt has {longest:,} characters; {name} takes {model.most_prompt:,} at most"
    return ""


_options_of = attrgetter(*OPTIONS)
_NO_OPTIONS = ("",) * len(OPTIONS)


def _refuse_params(settings: Settings, params: ImageParams, dash: str) -> str:
    """`dash`: the prefix of the names in the message, "--" for flags."""
    service = settings.backend.service
    if service is None and _options_of(params) == _NO_OPTIONS:
        return ""
    options = {word: value for word in OPTIONS if (value := getattr(params, word)) not in ("", "auto")}
    if service is None:
        return _refuse_on_this_machine(settings, options, dash)
    model = _model(settings) or Model()
    size = (params.width, params.height) if params.width and params.height else None
    if reason := _refuse_options(settings, service, model, options, size, dash):
        return reason
    if service.takes_sizes:
        if params.background == "transparent" and settings.image.format == "jpeg":
            background = _called("background", dash)
            return f"{background} transparent: JPEG has no transparency; use --format png or webp"
        if model.formats and settings.image.format not in model.formats:
            return f"--format {settings.image.format}: {settings.model.name} gives {', '.join(model.formats)}"
        return _refuse_size(model, settings.model.name, size, _called("size", dash)) if size else ""
    return _refuse_shape(settings, service, model, params, size, dash) if size else ""


def _model(settings: Settings) -> Model | None:
    """What the catalog says about the model; None if it has no entry."""
    provider = settings.backend.provider
    return find(provider, settings.model.name) if provider else None


def _called(word: str, dash: str) -> str:
    return dash + word.replace("_", "-") if dash else word


def _refuse_on_this_machine(settings: Settings, options: dict[str, str], dash: str) -> str:
    for word, value in options.items():
        said = f"{_called(word, dash)} {value}"
        if word != "quality" or not settings.backend.optimizes:
            return f"{said}: only APIs support it; leave it out or use --backend openai or gemini"
        own = settings.optimizations.quality
        if value == own:
            continue
        if value not in QUALITIES:
            return f"{said}: the engine on this machine knows {', '.join(QUALITIES)}; for {value} use --backend openai"
        return f"{said}: all rows of a run have the same quality; this run's is {own} (--quality)"
    return ""


def _refuse_options(
    settings: Settings, service: Service, model: Model, options: dict[str, str], size: tuple[int, int] | None, dash: str
) -> str:
    """Why options are refused: the format does not have them, or the model does not support their values."""
    for word in options.keys() - set(service.options):
        if word == "aspect_ratio" and size and _same_shape(options[word], size):
            continue
        instead = {"aspect_ratio": "size", "resolution": "size"}.get(word)
        fix = f"use {_called(instead, dash)}, such as 1536x1024" if instead else "leave it out, or say it in the prompt"
        return f"{_called(word, dash)} {options[word]}: {service.title}'s format does not support it; {fix}"
    known = {
        "quality": model.qualities,
        "background": model.backgrounds,
        "aspect_ratio": model.aspect_ratios,
        "resolution": model.resolutions,
    }
    for word, value in options.items():
        if known[word] and value not in known[word] and word in service.options:
            choices = ", ".join(known[word])
            return f"{_called(word, dash)} {value}: {settings.model.name} supports {choices} (as of {as_of()})"
    return ""


def _refuse_shape(
    settings: Settings, service: Service, model: Model, params: ImageParams, size: tuple[int, int], dash: str
) -> str:
    """Why a size is refused by a service that only has aspect ratios."""
    said = f"{_called('size', dash)} {size[0]}x{size[1]}"
    ratio = _called("aspect_ratio", dash)
    if not shape(settings, params)[0]:
        return (
            f"{said}: {service.title} takes no sizes, and none of its aspect ratios is close to this one; use {ratio} "
            f"({', '.join(model.aspect_ratios)})"
        )
    asked = params.aspect_ratio
    if asked not in ("", "auto") and not _same_shape(asked, size):
        return f"{said} is not {ratio} {asked}; leave one out"
    return ""


def _refuse_size(model: Model, name: str, size: tuple[int, int], word: str) -> str:
    text = f"{size[0]}x{size[1]}"
    if model.sizes and text not in model.sizes:
        return f"{word} {text}: {name} supports {', '.join(model.sizes)} (as of {as_of()})"
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
    """(aspect ratio, resolution) for an API that takes no sizes: what the row asks for, else what fits the size it asks
    for."""
    ratio, resolution = (value if value != "auto" else "" for value in (params.aspect_ratio, params.resolution))
    if not (params.width and params.height):
        return ratio, resolution
    model = _model(settings)
    size = (params.width, params.height)
    ratios: Iterable[str] = (model.aspect_ratios if model else ()) or (f"{size[0]}:{size[1]}",)
    ratio = ratio or next((one for one in ratios if _same_shape(one, size)), "")
    known = [one for one in (model.resolutions if model else ()) if one in PIXELS] or ["1K", "2K", "4K"]
    # 3840x2160 is halfway between two of them, and is called 4K.
    nearest = min(known, key=lambda one: abs(math.log(PIXELS[one] / (size[0] * size[1]) / 1.05)))
    return ratio, resolution or nearest
