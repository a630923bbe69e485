"""The only way to the network: the vLLM client and the vendors' SDKs (sdk_transport.py) send through it, and it fetches
images that an answer points to.

A request has one deadline, from sending to the last byte. An answer may be as long as what was asked for can make it;
a longer one is cut off while it is read. A redirect never leaves its origin, and a body is never sent on as a GET. So
keys, prompts and images go only to the address that the user gave. Does not know vendors or the content of requests.
"""

from __future__ import annotations

import http.client
import socket
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3

from fastgen.backends.remote.connections import addresses, is_public, now, pools
from fastgen.backends.remote.faults import Moved, NoAnswer, NotFetched, TooLarge, Unreadable
from fastgen.errors import EngineError

MOST_BYTES = 64 << 20
"""Maximum size of an answer, if nothing else is said."""
MOST_ERROR_BYTES = 1 << 20
"""Maximum size of an error message; the rest is not read."""
MOST_HOPS = 5
REDIRECTS = (301, 302, 303, 307, 308)
AGAIN = (404, 408, 425, 429)
"""Statuses of an address where an image may be available a moment later, like all of 500 and above."""
_PORTS = {"http": 80, "https": 443}
_most: ContextVar[int] = ContextVar("most", default=MOST_BYTES)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    data: bytes


@contextmanager
def up_to(most: int) -> Iterator[None]:
    """Inside the block, answers may have `most` bytes."""
    token = _most.set(most)
    try:
        yield
    finally:
        _most.reset(token)


class Client:
    """Thread-safe.

    Args:
        base_url: the address of the service; its query is added to each request.
        timeout_s: for one request, from sending it to the last byte of its answer.
        at_once: number of connections that stay open.
        direct: whether to ignore the proxies of the environment.
        image_hosts: where images may come from besides the service; none: any public host.
    Raises:
        EngineError: a proxy in the environment cannot be used.
    """

    def __init__(
        self, base_url: str, timeout_s: float, at_once: int, direct: bool = False, image_hosts: tuple[str, ...] = ()
    ):
        parts = urlsplit(base_url)
        self.base_url = parts._replace(path=parts.path.rstrip("/"), query="", fragment="").geturl()
        self.timeout_s = timeout_s
        self._base, self._query = urlsplit(self.base_url), parts.query
        self._at_once = at_once
        self._image_hosts = image_hosts
        self._proxies = {} if direct else urllib.request.getproxies()
        self._pools = {"": pools(at_once)}
        self.proxy = self._proxy(self._base)
        """The key of the service, "" for none."""
        self._pool(self._base)

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """Send one request to the service. Raises Fault."""
        parts = urlsplit(url)
        if self._query and origin(parts) == origin(self._base):
            parts = parts._replace(query="&".join(filter(None, (parts.query, self._query))))
        now.deadline, now.check = time.monotonic() + self.timeout_s, None
        return self._exchange(method, parts.geturl(), headers, body)

    def download(self, url: str, headers: Mapping[str, str], file: BinaryIO, timeout_s: float) -> Answer:
        """Write what is at an address of the service into a file, whatever its size; an answer of status 400 and above
        is not written. Raises Fault, OSError."""

        def store(reply: urllib3.BaseHTTPResponse) -> bytes:
            if reply.status >= 400:
                return _read(reply)
            for piece in reply.stream(1 << 20, decode_content=False):
                file.write(piece)
            return b""

        parts = urlsplit(url)
        if self._query:
            parts = parts._replace(query="&".join(filter(None, (parts.query, self._query))))
        now.deadline, now.check = time.monotonic() + timeout_s, None
        return self._exchange("GET", parts.geturl(), headers, None, store)

    def fetch(self, url: str) -> bytes:
        """Fetch what is at an address in an answer, without a key. The address must not be in this machine's network,
        unless it is the service's own host. Raises Fault."""
        parts = urlsplit(urljoin(f"{self.base_url}/", url))
        try:
            usable = parts.scheme in _PORTS and parts.hostname and parts.port != 0 and not parts.username
        except ValueError:
            usable = False
        if not usable:
            raise NotFetched("its address does not begin with http or https")
        now.deadline, now.check = time.monotonic() + self.timeout_s, None
        if parts.hostname != self._base.hostname:
            self._refuse_host(parts)
            now.check = self._refuse_private
            if self._proxy(parts):  # a proxy resolves names itself
                try:
                    self._refuse_private([a[0] for *_, a in addresses(parts.hostname or "", _PORTS[parts.scheme])])
                except socket.gaierror:
                    pass
                except TimeoutError:
                    raise NotFetched("its name was not resolved in time", True) from None
        try:
            answer = self._exchange("GET", parts.geturl(), {"Accept": "image/*"}, None)
        except (NoAnswer, Moved) as fault:
            raise NotFetched(str(fault), isinstance(fault, NoAnswer)) from None
        if answer.status != 200:
            raise NotFetched(f"its address answers {answer.status}", answer.status in AGAIN or answer.status >= 500)
        return answer.data

    def _refuse_host(self, parts: SplitResult) -> None:
        """Raise NotFetched if images must not come from that host."""
        host = parts.hostname or ""
        names = [allowed.partition(":")[0] for allowed in self._image_hosts]
        is_named = any(host == name or (name[:2] == "*." and host.endswith(name[1:])) for name in names)
        if self._image_hosts and not is_named and "*" not in names:
            raise NotFetched(f"{host} is not among --allow-image-hosts")

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()

    # The way of one request

    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        read: Callable[[urllib3.BaseHTTPResponse], bytes] | None = None,
    ) -> Answer:
        for _ in range(MOST_HOPS):
            now.sent = now.begun = False
            with self._faults():
                reply = self._pool(urlsplit(url)).urlopen(
                    method,
                    url,
                    body=body,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    assert_same_host=False,
                    preload_content=False,
                    decode_content=False,
                )
                now.begun = True
                try:
                    where = reply.headers.get("location") if reply.status in REDIRECTS else None
                    if where is None:
                        answer = Answer(reply.status, reply.headers, (read or _read)(reply))
                        reply.release_conn()
                        return answer
                finally:
                    reply.close()  # closes it, unless it was released
            url = self._next(method, url, reply.status, where)
        raise Moved(f"the service redirects requests in a circle: {shown(urlsplit(url))}")

    def _next(self, method: str, url: str, status: int, where: str) -> str:
        """Where a request continues after a redirect. Raises Moved."""
        try:
            before, after = urlsplit(url), urlsplit(urljoin(url, where))
            same = origin(before) == origin(after)
        except ValueError:
            raise Moved(f"the service answers {status} and gives no address that could be used") from None
        if same and (method == "GET" or status in (307, 308)):
            return after.geturl()
        why = "nothing was sent there" if not same else "a request with a body does not follow that"
        told = f"the service answers {status} and points to {shown(after)}; {why}"
        if method == "GET":
            raise Moved(told)
        tail = before.path.removeprefix(self._base.path.rstrip("/"))
        base = after._replace(path=after.path.removesuffix(tail)) if after.path.endswith(tail) else after
        raise Moved(f"{told}. If that is the right service, use --base-url {shown(base)}")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn urllib3's exceptions into NoAnswer."""
        try:
            yield
        except urllib3.exceptions.HTTPError as error:
            if time.monotonic() >= now.deadline - 0.01:
                kind = "ReadTimeout" if now.sent else "ConnectTimeout"
                said = f"{kind}: the request did not finish within --timeout ({self.timeout_s:g} s)"
            elif _broke_off(error):
                said = "the server disconnected before its answer was complete"
            else:
                said = f"{type(error).__name__}: {error}"
            raise NoAnswer(said, now.sent, now.begun) from error

    # Where to

    def _pool(self, parts: SplitResult) -> urllib3.PoolManager:
        proxy = self._proxy(parts)
        if proxy not in self._pools:
            if proxy.startswith("socks"):
                raise EngineError(
                    f"the environment names a SOCKS proxy for {parts.scheme}, which is not supported; set "
                    f"{parts.scheme.upper()}_PROXY to an HTTP proxy, or NO_PROXY={parts.hostname} if none is needed"
                )
            self._pools[proxy] = pools(self._at_once, proxy)
        return self._pools[proxy]

    def _proxy(self, parts: SplitResult) -> str:
        proxy = self._proxies.get(parts.scheme) or self._proxies.get("all") or ""
        return "" if proxy and urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]) else proxy

    def _refuse_private(self, found: Iterable[str]) -> None:
        """Raise NotFetched if one of the addresses is neither public nor the service's own host."""
        inside = [address for address in found if not is_public(address)]
        if not inside:
            return
        own: set[str] = set()
        with suppress(OSError):
            own = {a[0] for *_, a in addresses(self._base.hostname or "", _PORTS[self._base.scheme])}
        if not own.issuperset(inside):
            raise NotFetched("its address is in a private network, to which an answer must not lead")


def origin(parts: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port. Raises ValueError."""
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)


def shown(parts: SplitResult) -> str:
    """An address without parts that may be secret."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _broke_off(error: BaseException) -> bool:
    ends = (ConnectionError, http.client.RemoteDisconnected, http.client.IncompleteRead)
    return now.sent and any(isinstance(one, ends) for one in (error, *error.args, error.__cause__))


def _read(reply: urllib3.BaseHTTPResponse) -> bytes:
    """The body, up to the allowed length. Raises TooLarge, Unreadable."""
    good = reply.status < 400
    most = _most.get() if good else MOST_ERROR_BYTES
    try:
        declared = int(reply.headers.get("content-length", 0))
    except ValueError:
        declared = 0
    if good and declared > most:
        raise TooLarge(_too_large(most))
    unpack = _unpacker(reply.headers.get("content-encoding", ""))
    pieces, size = [], 0
    try:
        for piece in reply.stream(1 << 16, decode_content=False):
            part = unpack.decompress(piece, most + 1 - size) if unpack else piece
            pieces.append(part)
            size += len(part)
            if size > most:
                if good:
                    raise TooLarge(_too_large(most))
                break
    except zlib.error as error:
        raise Unreadable(f"the answer cannot be unpacked: {error}") from None
    if unpack and not unpack.eof and good:
        raise Unreadable("the answer cannot be unpacked: it is incomplete")
    return b"".join(pieces)


def _too_large(most: int) -> str:
    return f"the answer is longer than {most / 1e6:,.0f} MB, far more than what was asked for could be; it was cut off"


def _unpacker(encoding: str) -> zlib._Decompress | None:
    """A decoder for the encoding of an answer. Raises Unreadable."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Unreadable(f"the answer is packed as {encoding[:40]}, which was not requested")
    return zlib.decompressobj(32 + zlib.MAX_WBITS)  # gzip or zlib, by its first bytes
