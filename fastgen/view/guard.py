"""What stands between the page and everybody else: the address must have the token, the request must name this machine
(else a web page elsewhere could have its own name point here), and answers may not be used by other pages."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
App = Callable[[Scope, Callable, Callable], Awaitable[None]]

HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_LOCAL = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Whether an address of --host is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allows(host_header: str, host: str) -> bool:
    """Whether a request that names this host is meant for a server at `host` (--host)."""
    name = _without_port(host_header).lower()
    if name in (*_LOCAL, host.lower()):
        return True
    if is_loopback(host):
        return False
    try:  # an address cannot be made to point elsewhere, a name can
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return name in (socket.gethostname().lower(), socket.getfqdn().lower())


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


class Guard:
    """Args:
    app: what is guarded; it sees paths without the token.
    host: as --host.
    token: the first part of every path.
    """

    def __init__(self, app: App, host: str, token: str):
        self._app, self._host, self._prefix = app, host, f"/{token}"

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not allows(hosts[0], self._host):
            await _refuse(send, 421, "this server answers to the address that `fastgen view` printed only\n")
            return
        if not scope["path"].startswith(self._prefix + "/"):
            await _refuse(send, 404, "use the whole address that `fastgen view` printed\n")
            return
        path = scope["path"][len(self._prefix) :]

        async def send_with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        await self._app({**scope, "path": path, "raw_path": path.encode()}, receive, send_with_headers)


async def _refuse(send: Callable, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
