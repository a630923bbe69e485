"""Dated data on the models behind the APIs: `services.toml`, with the user's own file over it. Knows nothing of a
run."""

from __future__ import annotations

import math
import os
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from fastgen.config import backends
from fastgen.errors import SettingsError
from fastgen.types import ImageParams, Task, warm

OVERRIDE = "FASTGEN_SERVICES"
"""The environment variable that names a file to be laid over `services.toml`."""
FILE = Path(__file__).with_name("services.toml")
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


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    auto: dict[str, str] = {}
    """The default model by task."""
    models: dict[str, dict] = {}


warm(Section, Model)


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
            for section, content in found.items():
                where = f"{path}: {section}"
                if section == "as_of":
                    msgspec.convert(content, str)
                    continue
                if backends.all_known() and section not in backends.services():
                    raise ValueError(f"no such service; one of {', '.join(backends.services())}")
                for name, model in msgspec.convert(content, Section).models.items():
                    where = f"{path}: {section}.models.{name}"
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
    """What is known of a model; a dated snapshot is like the model that it is of. None: nothing. Raises
    SettingsError."""
    return _find(_files(), backend, name.removeprefix("models/"))


def data() -> dict:
    """`services.toml` with the user's own file over it. Raises SettingsError."""
    return _read(_files())


def as_of() -> str:
    """The date of what is known."""
    return data().get("as_of", "")
