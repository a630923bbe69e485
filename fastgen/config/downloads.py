"""What a run would download from the Hugging Face hub: announced before it begins, and not done where only a plan is
wanted. Imports huggingface_hub on first use."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from fastgen.config.short_names import SHORT_NAMES
from fastgen.errors import SettingsError

SIZES_GIB = {known.hub_id: known.weights_gib for known in SHORT_NAMES.values()} | {
    "black-forest-labs/FLUX.1-Krea-dev": 31.4,
}
"""Of the files that are downloaded, in bfloat16; for plans, which ask nothing of the hub."""
_plan_only: ContextVar[bool] = ContextVar("plan_only", default=False)
_refused: ContextVar[Callable[[], str] | None] = ContextVar("refused", default=None)


class Download(msgspec.Struct, frozen=True):
    """One model that is not on this machine."""

    model: str
    gib: float
    """0 if that is not known."""
    place: str
    free_gib: float
    is_gated: bool = False
    """Whether its licence has to be accepted on its page."""
    has_token: bool = False
    """Whether there is a token of the hub on this machine."""

    def __str__(self) -> str:
        size = f"{self.gib:.1f} GiB" if self.gib else "a size that the hub alone knows"
        short = "; that is not enough" if self.gib > self.free_gib else ""
        text = f"{self.model}: {size} to {self.place} ({self.free_gib:.1f} GiB are free{short})"
        if self.is_gated:
            token = "there is a token" if self.has_token else "there is no token: run 'hf auth login', or set HF_TOKEN"
            text += f"; its licence must be accepted at {page(self.model)}, and {token}"
        return text


@contextmanager
def none() -> Iterator[None]:
    """Inside, nothing is asked of the network; what is missing is left out of plans."""
    token = _plan_only.set(True)
    try:
        yield
    finally:
        _plan_only.reset(token)


@contextmanager
def refused(reason: Callable[[], str]) -> Iterator[None]:
    """Inside, a download is an error if what it is for could not run. `reason` says why, or "", and is asked only
    then."""
    token = _refused.set(reason)
    try:
        yield
    finally:
        _refused.reset(token)


def check() -> None:
    """Raise SettingsError if a download would be in vain (`refused`)."""
    if (ask := _refused.get()) and (reason := ask()):
        raise SettingsError(reason)


def wanted() -> bool:
    """Whether models may be downloaded."""
    return not _plan_only.get()


def page(model: str) -> str:
    """The page of a model on the hub."""
    return f"https://huggingface.co/{model}"


def has_token() -> bool:
    """Whether this machine has a token of the hub; it may still be wrong."""
    from huggingface_hub import get_token

    return bool(get_token())


def of(model: str, gib: float = 0.0, is_gated: bool | None = None) -> Download:
    """The download of a model. `gib` and `is_gated`: if the hub has said them."""
    if is_gated is None:
        is_gated = any(known.is_gated for known in SHORT_NAMES.values() if known.hub_id == model)
    place = Path(_cache())
    there = next((folder for folder in (place, *place.parents) if folder.exists()), Path("/"))
    free = shutil.disk_usage(there).free / 2**30
    return Download(model, gib or SIZES_GIB.get(model, 0.0), str(place), round(free, 1), is_gated, has_token())


def announce(model: str, patterns: list[str], say: Callable[[str], None] | None = None) -> None:
    """Say how much is about to be downloaded, and where to. Silent if the hub does not say."""
    from huggingface_hub import HfApi

    with suppress(Exception):  # the download itself will say what is wrong
        info = HfApi().model_info(model, files_metadata=True, timeout=10)
        files = info.siblings or []
        size = sum(file.size or 0 for file in files if any(fnmatch(file.rfilename, pattern) for pattern in patterns))
        there = of(model, size / 2**30, bool(getattr(info, "gated", False)))
        (say or _print)(f"downloading {there}; if it is interrupted, the same command continues it")


def _print(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _cache() -> str:
    from huggingface_hub import constants

    return os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE
