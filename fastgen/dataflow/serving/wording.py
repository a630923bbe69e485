"""Rewrites fastgen's messages about flags and rows in terms of a serving's own parameters. Knows only the forms of
messages."""

from __future__ import annotations

import re
from collections.abc import Mapping

FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
ROW = re.compile(r"^row \d+(?:, field (\S+?))?: ")
"""A row of the call, which is not a row of the user's table; the key before a message says which input it is."""
ROOT = re.compile(r" and --image-root| or another --image-root")
"""Paths are absolute here."""


def in_parameters(text: str, names: Mapping[str, str]) -> str:
    """The message with the parameters of a serving.

    Args:
        names: of parameters that are not called like the flag: {"model": "model_name"}.
    """
    text = ROW.sub(lambda found: f"{found[1]}: " if found[1] else "", text)
    return FLAG.sub(lambda found: names.get(found[1], found[1].replace("-", "_")), ROOT.sub("", text))
