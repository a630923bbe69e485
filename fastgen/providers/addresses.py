"""What must not stand in the address of a service: addresses go into run.json, logs and messages, and keys into none of
them. Sends nothing, reads no environment."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, parse_qsl, unquote

_SECRET_NAME = re.compile(
    r"(key|token|sig|signature|secret|(^|[_-])pass|passw(or)?d|pwd|auth|authorization|credentials?|jwt|^code)$"
)
"""How the names of query parameters end that hold a key: `key`, `api_key`, `subscription-key`, `X-Amz-Signature`."""
_HARMLESS = {"api-version", "api_version", "version", "deployment", "deployment-id", "model", "region", "location"}
"""Names whose values may be long."""
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(sk-[\w-]{12,}|AIza[\w-]{20,}|(gsk|hf|ghp|xai|pk|rk|nvapi|r8)[_-]\w{16,}|eyJ[\w-]{16,}\.)"
)
"""How the keys of some services look, wherever they stand."""
_RANDOM = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w+/=.~-]{20,}")


def secret_in(parts: SplitResult, keys: Iterable[str] = ()) -> str:
    """What in an address looks like a key, for a message, without the key; "" for nothing.

    Args:
        keys: as of `has_key`.
    """
    if parts.username or parts.password:
        return "a password"
    if has_key(unquote(f"{parts.path}?{parts.query}#{parts.fragment}"), keys):
        return "a key"
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if _SECRET_NAME.search(name.lower()) or (name.lower() not in _HARMLESS and _RANDOM.fullmatch(value)):
            return f"what looks like a key (?{name[:40]}=...)"
    return "something behind a #, which is never sent" if parts.fragment else ""


def has_key(text: str, keys: Iterable[str]) -> bool:
    """Whether there is a key in a text. `keys`: those of the environment, which must not be there whatever they look
    like; short ones are made-up words."""
    return _KEY.search(text) is not None or any(len(key) >= 12 and key in text for key in keys)


def bare(url: str) -> str:
    """An address for a message, though it may be none: without what may be secret in it."""
    return "" if "@" in url else _KEY.sub("...", re.split(r"[?#]", url)[0])
