"""The oldest versions of the libraries that the engines work with. Imports none of them."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

ENGINE = ("torch", "diffusers", "transformers", "accelerate")
"""What every model of the local engine needs."""
LOWEST = {
    "torch": "2.11",
    "diffusers": "0.41",
    "transformers": "5.16.1",
    "accelerate": "1.13",
    "bitsandbytes": "0.50",
    "torchao": "0.18",
}
"""As in pyproject.toml; pip can be told to ignore that, and other packages can replace what it installed."""


def unfit(package: str) -> str:
    """Why a library cannot be used as it is installed, and the fix; "" if it can."""
    least = LOWEST[package]
    try:
        found = version(package)
    except PackageNotFoundError:  # a build without metadata is taken as it is
        return "" if find_spec(package) else f"{package} is not installed; pip install '{package}>={least}'"
    if _numbers(found) < _numbers(least):
        return f"{package} {found} is too old: {least} or newer is needed; pip install '{package}>={least}'"
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    """2.13.0+cpu -> (2, 13, 0). A pre-release counts as its release."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()
