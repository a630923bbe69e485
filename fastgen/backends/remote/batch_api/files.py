"""Files of requests and of results, which both Batch APIs have: what a line may be, how a file is fetched, and why a
request has no line. Knows no service.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from fastgen.backends.remote import responses
from fastgen.backends.remote.http_client import Client
from fastgen.errors import DiskError

CALL_S, TRANSFER_S = 120.0, 3600.0
"""Time limit for a call, and for a file of requests or results, or a part of it."""
NO_API = (404, 405, 501)
"""Status of a server that has no Batch API."""
_NOT_DONE = {
    "expired": "the batch expired before its turn",
    "cancelled": "the batch was cancelled before its turn",
}


def on_one_line(body: bytes) -> bytes:
    """The same JSON without line breaks."""
    return msgspec.json.encode(msgspec.json.decode(body)) if b"\n" in body else body


def download(http: Client, url: str, headers: dict[str, str], to: Path, clean: Callable[[object], str]) -> None:
    """Raises DiskError, Fault, ProviderError."""
    try:
        with to.open("wb") as data:
            answer = http.download(url, headers, data, TRANSFER_S)
    except OSError as error:
        raise DiskError(f"cannot write {to}: {error.strerror}") from None
    if answer.status != 200:
        raise responses.of_status(answer.status, "", clean(answer.data))


def not_done(state: str) -> str:
    """Why a request has no result in a batch that has ended in this state."""
    return _NOT_DONE.get(state, "the results of the batch do not have it")
