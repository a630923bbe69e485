"""The message of a row that a service did not do, as a user needs it: which row, which host, and what to do."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from fastgen.config.settings import Settings
from fastgen.types import Failed

_CONNECTION = re.compile(r"^no answer: \w+: _?\w+\(host=[^)]*\): ")
"""How urllib3's errors begin; their own words, and the host, follow."""
_NUMBER = re.compile(r"\[Errno -?\d+\] ")


def told(failed: Failed, settings: Settings, row: int) -> str:
    """The message of a failure, with the row, the host and the fix. What is wrong with a row itself says so already."""
    message = _NUMBER.sub("", _CONNECTION.sub("no answer: ", failed.message))
    if failed.kind in ("input", "internal") or not failed.attempts:
        return message
    fix = _fix(failed.kind, settings)
    where = ", ".join(filter(None, (f"row {row}" if row else "", _host(settings))))
    return f"{where}: {message}{f'; {fix}' if fix else ''}" if where else message


def _host(settings: Settings) -> str:
    """That of the address, or the service's name."""
    if settings.endpoint.base_url and not settings.endpoint.more_urls:
        return urlsplit(settings.endpoint.base_url).netloc.rpartition("@")[2]
    return settings.backend.service.title if settings.backend.service else str(settings.backend)


def _fix(kind: str, settings: Settings) -> str:
    key = settings.endpoint.key_name
    return {
        "unavailable": "check --base-url and that the service runs" if settings.endpoint.base_url else "",
        "unauthorized": f"check the key in {key}" if key else "the service wants a key",
        "quota": "add credit to the account, or name a --fallback",
        "gone": "check --model and --base-url",
    }.get(kind, "")
