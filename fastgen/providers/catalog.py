"""Dated data about the models behind the APIs: `services.toml`, overridden by the user's own file. Does not know about
runs."""

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
"""The environment variable that names a file which overrides `services.toml`."""
FILE = Path(__file__).with_name("services.toml")
AUTO_SIZES = ((1024, 1024), (1536, 1024))
"""The sizes that OpenAI's models choose from if the row sets none. Portrait sizes cost the same."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sizes that a model supports; 0 means no limit."""

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
    """USD per million tokens, and the maximum number of tokens to expect."""

    text_in: float = 0.0
    image_in: float = 0.0
    text_out: float = 0.0
    image_out: float = 0.0
    per_picture_in: int = 6500
    """Maximum tokens of an input image."""
    batch: float = 0.5
    """The share of these prices that the Batch API asks."""
    thinking: int = 0
    """Maximum text tokens that come with an image."""
    picture_tokens: dict[str, int] = {}
    """Tokens of an image by its quality or resolution."""
    effort: dict[str, int] = {}
    """The same by OpenAI's formula, for models with free sizes; see `services.toml`."""

    def usd(self, usage: dict[str, int]) -> float:
        return sum(usage.get(k, 0) * getattr(self, k) for k in ("text_in", "image_in", "text_out", "image_out")) / 1e6

    def out_of_picture(self, params: ImageParams) -> float:
        """Maximum USD for making one image."""
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
    """What is known about one model. Empty or 0 means unknown, and is not checked."""

    like: str = ""
    """Another model of the same API, whose entries apply where this model has none."""
    status: Literal["live", "retired"] = "live"
    until: str = ""
    """The date on which it ends or ended."""
    disputed: bool = False
    """Whether sources disagree about that date."""
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
    """Images per request."""
    most_pictures: int = 0
    most_prompt: int = 0
    """Characters."""
    mask: Literal["", "yes", "no", "emulated"] = ""
    reasoning: str = ""
    """How much a caption model should think; temperature applies only to those that do not."""
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
        raise SettingsError(
            f"{OVERRIDE} {own}: cannot be read: {error.strerror}; give the path of a TOML file"
        ) from None


@lru_cache(maxsize=8)
def _read(files: Files) -> dict:
    """The files, merged. Raises SettingsError."""
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
        except OSError as error:
            raise SettingsError(
                f"{OVERRIDE} {path}: cannot be read: {error.strerror}; give the path of a TOML file"
            ) from None
        except UnicodeDecodeError:
            raise SettingsError(f"{OVERRIDE}: {path}: not UTF-8; save it as UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{OVERRIDE}: {where}: {error}; see docs/apis.md for its format") from None
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
    """What is known about a model; a dated snapshot counts as its model. None if nothing is known. Raises
    SettingsError."""
    return _find(_files(), backend, name.removeprefix("models/"))


def data() -> dict:
    """`services.toml`, overridden by the user's own file. Raises SettingsError."""
    return _read(_files())


def as_of() -> str:
    """The date of the data."""
    return data().get("as_of", "")
