"""What is known of the APIs, from dated data (`services.toml`): which models there are, what they can do, what they cost;
and where an API is reached, from flags and the environment. Sends nothing, imports no SDK, keeps no key."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from fastgen.errors import SettingsError
from fastgen.models import Defaults, ModelCard
from fastgen.settings import Endpoint, Settings
from fastgen.types import ImageParams, Request, Task, TextParams

OVERRIDE = "FASTGEN_SERVICES"
"""The environment variable that names a file to be laid over `services.toml`."""
FILE = Path(__file__).with_name("services.toml")
LANES = {"vllm": 2, "openai": 1, "gemini": 1}
"""Client processes of one endpoint."""
MAX_INFLIGHT = {"vllm": 256, "openai": 64, "gemini": 64}
TIMEOUT_S = {"t2i": 600.0, "edit": 600.0, "caption": 120.0}
NAMES = {"openai": "OpenAI", "gemini": "Gemini"}
KEYS = {"openai": ("OPENAI_API_KEY",), "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY")}
BASE_URLS = {"openai": "OPENAI_BASE_URL", "gemini": "GOOGLE_GEMINI_BASE_URL"}
ANY_KEY, ANY_BASE_URL = "DF_API_KEY", "DF_BASE_URL"
"""For a service that speaks both formats."""
MODULES = {"openai": "openai", "gemini": "google.genai"}
WORDS = {"openai": ("quality", "background"), "gemini": ("aspect_ratio", "resolution")}
"""Which of `settings.WISHES` the format of an API has."""
PIXELS = {"512": 512**2, "1K": 1024**2, "2K": 2048**2, "4K": 4096**2}
AUTO_SIZES = ((1024, 1024), (1536, 1024))
"""What OpenAI's models choose from where the row names no size; upright ones cost as much."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes that a model makes; 0 where it does not matter."""

    multiple: int = 0
    ratio: float = 0.0
    least: int = 0
    most: int = 0
    edge: int = 0

    def refuse(self, width: int, height: int) -> str:
        if self.multiple and (width % self.multiple or height % self.multiple):
            near = "x".join(str(max(1, round(side / self.multiple)) * self.multiple) for side in (width, height))
            return f"its sides must be multiples of {self.multiple}; the nearest is {near}"
        if self.ratio and max(width, height) > self.ratio * min(width, height):
            return f"its sides may differ by a factor of {self.ratio:g} at most"
        if self.edge and max(width, height) > self.edge:
            return f"a side may have {self.edge} pixels at most"
        if self.least and width * height < self.least:
            return f"it has {width * height:,} pixels and must have {self.least:,} at least, such as 1024x1024"
        if self.most and width * height > self.most:
            return f"it has {width * height:,} pixels and may have {self.most:,} at most"
        return ""


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """USD for a million tokens, and how many tokens to reckon with at most."""

    text_in: float = 0.0
    image_in: float = 0.0
    text_out: float = 0.0
    image_out: float = 0.0
    per_picture_in: int = 6500
    """Tokens of an input picture, at most."""
    thinking: int = 0
    """Tokens of text that come with a picture, at most."""
    picture_tokens: dict[str, int] = {}
    """Tokens of a picture by its quality or resolution."""
    effort: dict[str, int] = {}
    """The same by OpenAI's formula, for models that make any size; see `services.toml`."""

    def usd(self, usage: dict[str, int]) -> float:
        return sum(usage.get(k, 0) * getattr(self, k) for k in ("text_in", "image_in", "text_out", "image_out")) / 1e6

    def out_of_picture(self, params: ImageParams) -> float:
        """USD of making one picture, at most."""
        word = params.quality or params.resolution
        tokens = self.picture_tokens.get(word, max(self.picture_tokens.values(), default=0))
        if self.effort:
            effort = self.effort.get(params.quality, max(self.effort.values()))
            sizes = ((params.width, params.height),) if params.width and params.height else AUTO_SIZES
            tokens = max(
                math.ceil(effort * round(effort * min(size) / max(size)) * (2e6 + size[0] * size[1]) / 4e6)
                for size in sizes
            )
        return self.usd({"image_out": tokens, "text_out": self.thinking})


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one model. Empty or 0: not known, and not checked."""

    like: str = ""
    """Another model of the same API, whose entries it takes where it has none of its own."""
    status: Literal["live", "retired"] = "live"
    until: str = ""
    """The date of its end, past or to come."""
    disputed: bool = False
    """Whether sources disagree on that."""
    successor: str = ""
    tasks: tuple[Task, ...] = ()
    sizes: tuple[str, ...] = ()
    rule: Rule | None = None
    aspect_ratios: tuple[str, ...] = ()
    resolutions: tuple[str, ...] = ()
    qualities: tuple[str, ...] = ()
    backgrounds: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    most_n: int = 0
    """Pictures that one request gives."""
    most_pictures: int = 0
    most_prompt: int = 0
    """Characters."""
    mask: Literal["", "yes", "no", "emulated"] = ""
    reasoning: str = ""
    """How much a caption's model is to think; temperature is only for those that do not."""
    price: Price | None = None


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    auto: dict[str, str] = {}
    """The default model by task."""
    models: dict[str, dict] = {}


class Services(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    as_of: str = ""
    openai: Service = Service()
    gemini: Service = Service()


Files = tuple[tuple[str, int], ...]
"""Paths, and when each was changed."""


def _files() -> Files:
    own = os.environ.get(OVERRIDE)
    paths = [FILE, Path(own).expanduser()] if own else [FILE]
    try:
        return tuple((str(path), path.stat().st_mtime_ns) for path in paths)
    except OSError as error:
        raise SettingsError(f"{OVERRIDE}={own}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=8)
def _read(files: Files) -> dict:
    """The files laid over each other. Raises SettingsError."""
    merged: dict = {}
    for path, _ in files:
        where = path
        try:
            found = tomllib.loads(Path(path).read_text("utf-8"))
            services = msgspec.convert(found, Services)
            for backend in NAMES:
                for name, model in getattr(services, backend).models.items():
                    where = f"{path}: {backend}.models.{name}"
                    msgspec.convert(model, Model)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{OVERRIDE}: {where}: {error}") from None
        merged = _over(merged, found)
    return merged


def _over(under: dict, over: dict) -> dict:
    return under | {
        k: _over(under[k], v) if isinstance(v, dict) and isinstance(under.get(k), dict) else v for k, v in over.items()
    }


def _known(models: dict, name: str, seen: frozenset[str] = frozenset()) -> dict:
    own = dict(models[name])
    like = own.pop("like", "")
    if like not in models or like in seen:
        return own
    below = _known(models, like, seen | {name})
    if "price" in below and "price" in own:
        own["price"] = below["price"] | own["price"]
    return below | own


@lru_cache(maxsize=64)
def _find(files: Files, backend: str, name: str) -> Model | None:
    models = _read(files).get(backend, {}).get("models", {})
    for known in (name, re.sub(r"-\d{4}-\d\d-\d\d$", "", name)):
        if known in models:
            return msgspec.convert(_known(models, known), Model)
    return None


def find(backend: str, name: str) -> Model | None:
    """What is known of a model; a dated snapshot is like the model that it is of. None: nothing. Raises SettingsError."""
    return _find(_files(), backend, name.removeprefix("models/"))


def as_of() -> str:
    return _read(_files()).get("as_of", "")


def connect(
    backend: str, task: Task, model: str, on_gpu: bool, base_url: str | None, vllm_command: str | None
) -> tuple[ModelCard, Endpoint, list[str]]:
    """The model's card, where it is reached, and what the user should be told about that. Raises SettingsError."""
    if backend == "vllm":
        from fastgen import vllm_home

        return vllm_home.connect(task, model, on_gpu, base_url, vllm_command)
    try:
        there = find_spec(MODULES[backend]) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        raise SettingsError(f"--backend {backend}: its SDK is not installed: pip install 'fastgen-mm[api]'")
    url, key_name, notes = _place(backend, base_url)
    if model == "auto":
        model = _read(_files()).get(backend, {}).get("auto", {}).get(task, "")
        if not model:
            raise SettingsError(f"--model: no default is known for {task} with {NAMES[backend]}; name one with --model")
    notes += _about(backend, model)
    card = ModelCard(model, "", "api", "api", Defaults(edits=True), grid=1)
    return card, Endpoint(base_url=url, key_name=key_name), notes


def _place(backend: str, given: str | None) -> tuple[str, str, list[str]]:
    """(base URL, name of the variable with the key, notes)."""
    names = (*KEYS[backend], ANY_KEY)
    key_name = next((name for name in names if os.environ.get(name)), "")
    url, said = given or "", "--base-url"
    if not url and key_name == ANY_KEY:
        url, said = os.environ.get(ANY_BASE_URL, ""), ANY_BASE_URL
    if not url:
        url, said = os.environ.get(BASE_URLS[backend], ""), BASE_URLS[backend]
    notes = []
    if not key_name:
        if not url:
            raise SettingsError(
                f"--backend {backend}: no key; set {' or '.join(names)} in the environment, or give the address of a "
                "server that needs none with --base-url"
            )
        notes.append(f"{backend}: none of {', '.join(names)} is set, so requests to {url} go out without a key")
    if not url:
        return "", key_name, notes
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"{said} {url}: not an address such as http://localhost:8000/v1")
    url = url.rstrip("/")
    if backend == "openai" and not parts.path.strip("/"):
        url += "/v1"
        notes.append(f"{said} has no path; requests go to {url}")
    if key_name == ANY_KEY or said != "--base-url":
        notes.append(f"{backend}: requests go to {url}, with the key in {key_name or 'no variable'} ({said})")
    return url, key_name, notes


def gemini_place(base_url: str) -> tuple[str, str]:
    """(base URL, API version): google-genai wants them apart; "" where it is to decide."""
    found = re.fullmatch(r"(.*?)/(v\d+(?:alpha|beta)?\d*)/?", base_url)
    return (found[1], found[2]) if found else (base_url, "")


def _about(backend: str, name: str) -> list[str]:
    model = find(backend, name)
    if model is None:
        return [f"--model {name}: not among the models of {NAMES[backend]} known here (as of {as_of()}); it is asked for as it is"]
    after = f"; its successor is {model.successor}" if model.successor else ""
    if model.disputed:
        return [f"--model {name}: sources disagree on whether it still answers (since {model.until}){after}"]
    if model.status == "retired" or (model.until and model.until <= date.today().isoformat()):
        return [f"--model {name}: was shut down on {model.until}{after}"]
    return [f"--model {name}: shuts down on {model.until}{after}"] if model.until else []


def refuse_flags(settings: Settings) -> str:
    """Why the flags cannot be honoured by this backend and model; "" if they can."""
    if settings.task != "caption":
        width, height = settings.size or (0, 0)
        params = ImageParams(width, height, settings.steps, settings.guidance, settings.seed, settings.n, **settings.wishes)
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
    words = {w: v for w in ("quality", "background", "aspect_ratio", "resolution") if (v := getattr(params, w)) not in ("", "auto")}
    backend, name = settings.backend, settings.model.name

    def called(word: str) -> str:
        return dash + word.replace("_", "-") if dash else word

    if backend not in NAMES:
        for word, value in words.items():
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
    known = {"quality": model.qualities, "background": model.backgrounds, "aspect_ratio": model.aspect_ratios,
             "resolution": model.resolutions}  # fmt: skip
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
        return (f"{called('size')} {size[0]}x{size[1]}: {NAMES[backend]} takes no sizes, and none of its shapes is near "
                f"this one; say {called('aspect_ratio')} ({', '.join(model.aspect_ratios)})")  # fmt: skip
    if size and "aspect_ratio" in words and not _same_shape(words["aspect_ratio"], size):
        return f"{called('size')} {size[0]}x{size[1]} is not {called('aspect_ratio')} {words['aspect_ratio']}; leave one out"
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
    nearest = min(known, key=lambda one: abs(math.log(PIXELS[one] / (size[0] * size[1]))))
    return ratio, resolution or nearest


def price(settings: Settings) -> Price | None:
    """None: it costs nothing, or nobody knows."""
    model = find(settings.backend, settings.model.name) if settings.backend in NAMES else None
    return model.price if model else None


def estimate(settings: Settings, request: Request) -> float:
    """USD that a request may cost at most; 0 where no price is known."""
    known = price(settings)
    if known is None:
        return 0.0
    # No token is shorter than a byte.
    words = sum(len(text.encode()) for text in (*request.prompts, *(text for _, text in request.dialogue)))
    if isinstance(request.params, TextParams):
        words += len(settings.text.system.encode()) + len(settings.text.schema.encode()) + 200
        usage = {"text_in": words, "image_in": len(request.images) * known.per_picture_in}
        return known.usd(usage | {"text_out": request.params.max_tokens})
    turns = len(request.prompts) if request.task == "edit" else 1
    pictures = sum(len(request.images) + bool(request.mask) + turn for turn in range(turns)) if request.images else 0
    asks = request.params.n * (turns if request.images else 1)
    usage = {"text_in": (words + 200) * asks, "image_in": pictures * known.per_picture_in * request.params.n}
    return known.usd(usage) + known.out_of_picture(_shaped(settings, request.params)) * request.samples * turns


def _shaped(settings: Settings, params: ImageParams) -> ImageParams:
    if settings.backend != "gemini":
        return params
    ratio, resolution = shape(settings, params)
    return msgspec.structs.replace(params, aspect_ratio=ratio, resolution=resolution)


def cost_of(settings: Settings, usage: dict[str, int], params: ImageParams | TextParams) -> float:
    """USD of an answer; where the service did not count, of its output at most; 0 where no price is known."""
    known = price(settings)
    if known is None:
        return 0.0
    if usage:
        return known.usd(usage)
    if isinstance(params, TextParams):
        return known.usd({"text_out": params.max_tokens})
    return known.out_of_picture(_shaped(settings, params)) * params.n
