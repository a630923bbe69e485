"""Lets a vendor's SDK use our own HTTP client: what httpx would send goes through http_client.py, so that the rules for
deadlines, sizes and redirects are the same for all. Does not know vendors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastgen.backends.remote.http_client import Answer, Client
from fastgen.backends.remote.unmasked import unmasked

if TYPE_CHECKING:
    import httpx2

_OURS = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding"}
"""Headers of a request that the connection sets itself."""
_DONE = {"content-encoding", "content-length", "transfer-encoding", "connection"}
"""Headers of an answer that are no longer true for its unpacked body."""


def over(
    http: Client, looks_into: bool = True, form: Callable[[Answer], Answer] = lambda answer: answer
) -> httpx2.Client:
    """A client for an SDK that sends everything through `http`, and closes it.

    Args:
        looks_into: whether an error with status 200 is one. It is none where the answer is about something else that
            has failed.
        form: makes of an answer the one that the SDK knows.
    """
    import httpx2

    worked = False

    class Transport(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            url = request.url
            address = f"{url.scheme}://{url.netloc.decode('ascii')}{url.raw_path.decode('ascii')}"
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _OURS}
            nonlocal worked
            answer = http.send(request.method, address, headers | {"Accept-Encoding": "gzip"}, request.read() or None)
            if looks_into:  # the SDKs take an error with status 200 for an answer
                answer = unmasked(answer, worked)
            answer = form(answer)
            worked = worked or answer.status < 300
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _DONE]
            return httpx2.Response(answer.status, headers=kept, content=answer.data, request=request)

        def close(self) -> None:
            http.close()

    return httpx2.Client(transport=Transport(), timeout=None, trust_env=False, follow_redirects=False)
