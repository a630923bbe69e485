"""Connections that keep to the deadline of a whole request, and connect only where they may. http_client.py stands on
them.

A socket's timeout is for one read, so a server that sends a byte now and then would be waited for forever. Here each
read gets what is left of the request's time. Knows no statuses, redirects or keys.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

if TYPE_CHECKING:
    _Base = HTTPConnection
else:
    _Base = object

CONNECT_S = 10.0
"""For each address of a host."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # source: RFC 6052


class Now(threading.local):
    """What holds for the request that this thread has under way."""

    deadline = 0.0
    """By time.monotonic()."""
    sent = False
    """Whether anything of it may have reached the service."""
    begun = False
    """Whether the head of an answer has come."""
    check: Callable[[Iterable[str]], None] | None = None
    """Called with the addresses of a host before one of them is connected to; raises where it must not be."""
    before_sending: Callable[[], None] | None = None
    """Called once, just before the first byte goes out."""


now = Now()


def left() -> float:
    """Seconds that the request has left. Raises TimeoutError."""
    seconds = now.deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


def addresses(host: str, port: int) -> list[tuple]:
    """What a name resolves to, in the form of `socket.getaddrinfo`.

    Raises:
        socket.gaierror: there is no such name. TimeoutError: no answer within what the request has left.
    """
    host = host.strip("[]")
    with suppress(socket.gaierror, UnicodeError):  # an address needs no name server
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: Future[list[tuple]] = Future()

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except UnicodeError:  # a label that is empty or too long
            found.set_exception(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        except OSError as error:
            found.set_exception(error)

    # The system's resolver cannot be told a time limit, nor stopped: its thread is left behind.
    threading.Thread(target=look_up, name="name", daemon=True).start()
    return found.result(left())


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet, whatever form hides another one in it."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        hidden = found.ipv4_mapped or found.sixtofour
        if hidden is None and found in _NAT64:
            hidden = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if hidden is not None:
            return is_public(str(hidden))
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


class _TimedFile(io.RawIOBase):
    def __init__(self, sock: socket.socket):
        self._sock, self._file = sock, sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(left())
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _TimedSocket:
    """As much of a socket as `http.client.HTTPResponse` uses."""

    def __init__(self, sock: socket.socket):
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedFile(self._sock))


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **more: Any):
        super().__init__(cast(socket.socket, _TimedSocket(sock)), *args, **more)


class _Timed(_Base):
    """Mixed into urllib3's connections, plain and TLS, direct and through a proxy."""

    response_class: Any = _TimedResponse

    def connect(self) -> None:
        super().connect()
        now.sent = False  # what went to a proxy until now is not the request

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(left())
        now.sent = True
        if now.before_sending is not None:
            tell, now.before_sending = now.before_sending, None
            tell()
        super().send(data)

    def _new_conn(self) -> socket.socket:
        try:
            found = addresses(self._dns_host, self.port)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"the name {self.host} was not resolved in time") from error
        if now.check is not None and not self.proxy:
            now.check([address[0] for *_, address in found])
        last: OSError | None = None
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(min(CONNECT_S, left()))
                sock.connect(address)
                sock.settimeout(left())  # of a TLS handshake
                return sock
            except OSError as error:
                sock.close()
                last = error
        if isinstance(last, TimeoutError):
            raise ConnectTimeoutError(self, f"no connection to {self.host} within {CONNECT_S:g} s") from last
        raise NewConnectionError(self, f"no connection to {self.host}: {last}") from last


class _Http(_Timed, HTTPConnection): ...


class _Https(_Timed, HTTPSConnection): ...


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


def pools(at_once: int, proxy: str = "") -> urllib3.PoolManager:
    """Pools of such connections, by origin. Args: proxy: its URL, "" for none. Raises ValueError."""
    options: dict[str, Any] = {"maxsize": at_once, "num_pools": 16, "ssl_context": _trusted()}
    found: urllib3.PoolManager
    if proxy:
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        parts = urlsplit(proxy)
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=login) if parts.username else {}
        found = urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
    else:
        found = urllib3.PoolManager(**options)
    found.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return found


@cache
def _trusted() -> ssl.SSLContext:
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):  # a Python that does not know where this system keeps its certificates
        with suppress(ImportError):
            import certifi

            context.load_verify_locations(certifi.where())
    return context
