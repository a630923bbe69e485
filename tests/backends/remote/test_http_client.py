"""The one HTTP client: deadlines, sizes, packed answers, addresses that an answer must not lead to, proxies."""

from __future__ import annotations

import datetime
import gzip
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from contextlib import suppress
from types import SimpleNamespace

import pytest

from fastgen.backends.remote import connections, http_client
from fastgen.backends.remote.connections import is_public
from fastgen.backends.remote.faults import NoAnswer, NotFetched, TooLarge, Unreadable
from fastgen.backends.remote.gate import DOWN_AFTER, SHRINK, Gate
from fastgen.backends.remote.http_client import Client, up_to
from fastgen.backends.remote.responses import ProviderError, of_fault, through
from fastgen.errors import EngineError

BYTE_EACH_S = 0.2
TIMEOUT_S = 1.0


def drip(handler, pieces):
    for piece in pieces:
        handler.wfile.write(piece)
        handler.wfile.flush()
        time.sleep(BYTE_EACH_S)


SLOW = {
    "the body": lambda h: (h.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n"), drip(h, [b"a"] * 100)),
    "a chunk": lambda h: (
        h.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        drip(h, [b"0"] * 100),
    ),
    "the head": lambda h: (h.wfile.write(b"HTTP/1.1 200 OK\r\nX-"), drip(h, [b"a"] * 100)),
    "the first line": lambda h: drip(h, [b"H"] * 100),
    "nothing": lambda h: time.sleep(100 * BYTE_EACH_S),
}


@pytest.mark.parametrize("what", SLOW)
def test_a_timeout_is_for_the_whole_request(server, what):
    slow = server(lambda handler, body: SLOW[what](handler))
    client = Client(slow.url, TIMEOUT_S, 1)
    with pytest.raises(NoAnswer, match=r"ReadTimeout.*--timeout \(1 s\)") as caught:
        client.send("POST", f"{slow.url}/v1", {}, b"{}")
    assert caught.value.paid
    assert caught.value.begun == (what in ("the body", "a chunk"))


@pytest.mark.parametrize("begun", [True, False])
def test_answers_that_come_too_slowly_do_not_make_other_rows_wait(begun):
    gate = Gate(8)
    for _ in range(DOWN_AFTER):
        with pytest.raises(ProviderError), through(gate):
            raise of_fault(NoAnswer("ReadTimeout", True, begun), str)
    assert (gate.epoch, gate.limit) == ((0, 8.0) if begun else (1, 8 * SHRINK)), (
        "only silence is a service that is down"
    )


def test_a_server_that_takes_the_body_slowly_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client = Client(f"http://127.0.0.1:{listening.getsockname()[1]}", TIMEOUT_S, 1)
        with pytest.raises(NoAnswer, match="--timeout"):
            client.send("POST", f"{client.base_url}/v1", {}, bytes(64 << 20))


def test_who_is_not_there_got_nothing():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid"):
        with pytest.raises(NoAnswer) as caught:
            Client(url, 5, 1).send("POST", f"{url}/v1", {}, b"{}")
        assert not caught.value.paid


def test_an_answer_that_breaks_off_may_be_paid(server):
    def half(handler, body):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nhalf")
        handler.close_connection = True

    cut = server(half)
    with pytest.raises(NoAnswer, match="disconnected") as caught:
        Client(cut.url, 5, 1).send("POST", f"{cut.url}/v1", {}, b"{}")
    assert caught.value.paid


def test_connections_are_kept_and_each_thread_has_its_own_deadline(server):
    def answer(handler, body):
        if body == b"slow":
            time.sleep(3 * TIMEOUT_S)
        handler.reply(200, str(handler.client_address[1]).encode())

    there = server(answer)
    client = Client(there.url, TIMEOUT_S, 4)
    ports = {client.send("POST", f"{there.url}/v1", {}, b"fast").data for _ in range(5)}
    assert len(ports) == 1
    faults = []

    def wait():
        try:
            client.send("POST", f"{there.url}/v1", {}, b"slow")
        except NoAnswer as fault:
            faults.append(fault)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while waiting.is_alive():
        assert client.send("POST", f"{there.url}/v1", {}, b"fast").status == 200
    assert len(faults) == 1


# Sizes


def long_answer(handler, body):
    """By its path: how it says, or does not say, how long it is. 40 MB of it are sent, if they are taken."""
    how = handler.path.rpartition("/")[2]
    status = 500 if how == "complaint" else 200
    handler.send_response(status)
    if how == "declared":
        handler.send_header("Content-Length", str(40 << 20))
    elif how == "chunked":
        handler.send_header("Transfer-Encoding", "chunked")
    handler.send_header("Connection", "close")
    handler.end_headers()
    for _ in range(40):
        piece = bytes(1 << 20)
        handler.wfile.write(b"100000\r\n" + piece + b"\r\n" if how == "chunked" else piece)
        long_answer.sent += 1
    handler.close_connection = True


@pytest.mark.parametrize("how", ["declared", "chunked", "until it closes"])
def test_an_answer_that_is_too_long_is_cut_off(server, how):
    long_answer.sent = 0
    there = server(long_answer)
    client = Client(there.url, 30, 1)
    with up_to(2_000_000), pytest.raises(TooLarge, match="2 MB") as caught:
        client.send("POST", f"{there.url}/{how.split()[0]}", {}, b"{}")
    assert caught.value.paid and caught.value.kind == "unsupported"
    assert long_answer.sent < 20, "it was not read to its end"


def test_of_a_complaint_the_beginning_is_read(server):
    long_answer.sent = 0
    there = server(long_answer)
    answer = Client(there.url, 30, 1).send("POST", f"{there.url}/complaint", {}, b"{}")
    assert answer.status == 500
    assert http_client.MOST_ERROR_BYTES <= len(answer.data) <= http_client.MOST_ERROR_BYTES + (1 << 16)


def test_packed_answers(server):
    bomb = gzip.compress(bytes(50 << 20))
    bodies = {
        "/gzip": ("gzip", gzip.compress(b"a red house")),
        "/deflate": ("deflate", zlib.compress(b"a red house")),
        "/cut": ("gzip", gzip.compress(b"a red house")[:-9]),
        "/no": ("gzip", b"a red house"),
        "/odd": ("br", b"a red house"),
        "/bomb": ("gzip", bomb),
    }

    def answer(handler, body):
        packed, data = bodies[handler.path]
        handler.reply(200, data, Content_Encoding=packed)

    there = server(answer)
    client = Client(there.url, 30, 1)
    for path in ("/gzip", "/deflate"):
        assert client.send("GET", there.url + path, {}).data == b"a red house"
    for path in ("/cut", "/no", "/odd"):
        with pytest.raises(Unreadable):
            client.send("GET", there.url + path, {})
    assert len(bomb) < 100_000
    with up_to(1_000_000), pytest.raises(TooLarge):
        client.send("GET", f"{there.url}/bomb", {})


# Addresses


@pytest.mark.parametrize(
    "address, public",
    [
        ("93.184.215.14", True),
        ("2606:4700:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_what_is_public(address, public):
    assert is_public(address) == public


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:9"])
def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch, proxy):
    answered, real = threading.Event(), socket.getaddrinfo

    def resolve(host, port, *args, flags=0, **more):
        if host == "slow.example" and not flags:
            answered.wait(30)
        return real(host, port, *args, flags=flags, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        if proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy)
            with pytest.raises(NotFetched, match="not resolved in time"):
                Client("http://service.invalid/v1", 0.2, 1).fetch("http://slow.example/a.png")
        else:
            with pytest.raises(NoAnswer, match=r"ConnectTimeout.*--timeout \(0\.2 s\)") as caught:
                Client("http://slow.example/v1", 0.2, 1).send("GET", "http://slow.example/v1/models", {})
            assert not caught.value.paid
    finally:
        answered.set()


@pytest.fixture
def names(monkeypatch):
    """names[host] = [address, ...]: what the resolver says from now on; a list of lists is said one after the other."""
    known: dict[str, list] = {}
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host, port, *args, **more):
        asked.append(host)
        if host not in known:
            return real(host, port, *args, **more)
        said = known[host]
        said = said.pop(0) if isinstance(said[0], list) else said
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in said]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


@pytest.fixture
def elsewhere():
    """A client of a service out there, in whose answers the addresses are."""
    return Client("http://service.invalid/v1", 2, 1)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/a.png",
        "http://localhost:{port}/a.png",
        "http://2130706433:{port}/a.png",
        "http://[::1]:{port}/a.png",
        "http://[::ffff:127.0.0.1]:{port}/a.png",
        "http://0.0.0.0:{port}/a.png",
        "http://inside.example:{port}/a.png",
        "http://mixed.example:{port}/a.png",
        "http://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/a.png",
    ],
)
def test_an_answer_leads_nowhere_inside(server, names, elsewhere, url):
    there = server(lambda handler, body: handler.reply(200, b"inside"))
    names["inside.example"] = ["127.0.0.1"]
    names["mixed.example"] = ["93.184.215.14", "127.0.0.1"]
    with pytest.raises(NotFetched, match="private network") as caught:
        elsewhere.fetch(url.format(port=there.port))
    assert not there.seen and not caught.value.again


def test_the_address_that_was_checked_is_the_one_that_is_asked(server, names, elsewhere, monkeypatch):
    """A name that means a public address when it is checked and an own one a moment later comes to nothing."""
    there = server(lambda handler, body: handler.reply(200, b"inside"))
    names["rebinding.example"] = [["93.184.215.14"], ["127.0.0.1"], ["127.0.0.1"]]
    connected = []

    def connect(sock, address):
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(connections.socket, "socket", type("Socket", (socket.socket,), {"connect": connect}))
    with pytest.raises(NotFetched):
        elsewhere.fetch(f"http://rebinding.example:{there.port}/a.png")
    assert connected == ["93.184.215.14"] and len(names["rebinding.example"]) == 2 and not there.seen


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "gopher://a/b", "http://u:p@example.com/", "http://a:0/"]
)
def test_only_http_is_fetched(elsewhere, url):
    with pytest.raises(NotFetched, match="http"):
        elsewhere.fetch(url)


def test_the_services_own_host_may_be_private(server):
    store = server(lambda handler, body: handler.reply(200, b"a picture"))
    service = Client("http://127.0.0.1:9/v1", 5, 1)
    assert service.fetch(f"{store.url}/a.png") == b"a picture"
    assert Client("http://localhost:9/v1", 5, 1).fetch(f"{store.url}/a.png") == b"a picture", "by its address too"
    assert Client(f"{store.url}/v1", 5, 1).fetch("/cdn/a.png") == b"a picture", "as seen from the service"
    assert store.seen[-1].path == "/cdn/a.png"
    assert not any("authorization" in {name.lower() for name in seen.headers} for seen in store.seen)


def test_what_is_fetched_has_an_end_too(server):
    there = server(lambda handler, body: handler.reply(200, bytes(3_000_000)))
    with up_to(1_000_000), pytest.raises(TooLarge):
        Client(there.url, 5, 1).fetch("/a.png")
    gone = server(lambda handler, body: handler.reply(int(handler.path[1:])))
    for status, again in ((403, False), (404, True), (503, True)):
        with pytest.raises(NotFetched, match=str(status)) as caught:
            Client(gone.url, 5, 1).fetch(f"/{status}")
        assert caught.value.again == again


# Where it goes through


def test_the_query_of_the_address_goes_along(server):
    there = server(lambda handler, body: handler.reply(200, b"{}"))
    client = Client(f"{there.url}/openai/v1/?api-version=2025-04-01-preview", 5, 1)
    assert client.base_url == f"{there.url}/openai/v1"
    client.send("POST", f"{client.base_url}/images?a=b", {}, b"{}")
    client.send("POST", f"{client.base_url}/images", {}, b"{}")
    assert [seen.path for seen in there.seen] == [
        "/openai/v1/images?a=b&api-version=2025-04-01-preview",
        "/openai/v1/images?api-version=2025-04-01-preview",
    ]


def test_proxies_of_the_environment(server, monkeypatch):
    proxy = server(lambda handler, body: handler.reply(200, b"by proxy"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{proxy.port}")
    url = "http://service.invalid/v1"
    assert Client(url, 5, 1).send("POST", url, {}, b"{}").data == b"by proxy"
    assert proxy.seen[0].path == url and proxy.seen[0].headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"
    with pytest.raises(NotFetched, match="private network"):
        Client(url, 5, 1).fetch("http://127.0.0.1:9/a.png")
    assert Client(url, 5, 1).fetch("http://elsewhere.invalid/a.png") == b"by proxy", "which resolves names itself"
    with pytest.raises(NoAnswer):
        Client(url, 5, 1, direct=True).send("POST", url, {}, b"{}")
    monkeypatch.setenv("no_proxy", "service.invalid")
    with pytest.raises(NoAnswer):
        Client(url, 5, 1).send("POST", url, {}, b"{}")
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    monkeypatch.delenv("no_proxy")
    with pytest.raises(EngineError, match=r"SOCKS.*HTTP_PROXY to an HTTP proxy, or NO_PROXY=service\.invalid"):
        Client(url, 5, 1)


# TLS


@pytest.fixture
def over_tls(server, tmp_path, monkeypatch):
    """over_tls(answer) -> a server with a certificate that is trusted here."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(today - datetime.timedelta(1)).not_valid_after(today + datetime.timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, *plain))
    (tmp_path / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    connections._trusted.cache_clear()

    def start(answer):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        there = server(answer, tls=context)
        return SimpleNamespace(url=f"https://localhost:{there.port}", port=there.port, seen=there.seen)

    yield start
    connections._trusted.cache_clear()


def echo_or_drip(handler, body):
    if body == b"slow":
        return SLOW["the body"](handler)
    return handler.reply(200, body)


@pytest.fixture
def tunnel(monkeypatch):
    """A proxy in the environment through which TLS goes; .asked has the heads of its requests."""
    asked = []

    def pump(source, goal):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                goal.sendall(data)
            goal.shutdown(socket.SHUT_WR)

    def serve():
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                head = b""
                while b"\r\n\r\n" not in head:
                    head += near.recv(4096)
                asked.append(head)
                far = socket.create_connection(("127.0.0.1", int(head.split()[1].rpartition(b":")[2])))
                near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        for name in ("HTTPS_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{listening.getsockname()[1]}")
        yield SimpleNamespace(asked=asked)
        listening.shutdown(socket.SHUT_RDWR)


def test_over_tls_the_same_holds(over_tls, monkeypatch):
    there = over_tls(echo_or_drip)
    client = Client(there.url, TIMEOUT_S, 2, direct=True)
    assert client.send("POST", there.url, {}, bytes(3 << 20)).data == bytes(3 << 20)
    with pytest.raises(NoAnswer, match="--timeout") as caught:
        client.send("POST", there.url, {}, b"slow")
    assert caught.value.paid
    with pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED") as caught:
        Client(there.url, 5, 1, direct=True).send("POST", f"https://127.0.0.1:{there.port}", {}, b"{}")
    assert not caught.value.paid, "the certificate is for another name"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(NoAnswer, match="ConnectTimeout") as caught:
            Client(url, TIMEOUT_S, 1, direct=True).send("POST", url, {}, b"{}")
    assert not caught.value.paid


def test_through_a_tunnel_the_same_holds(over_tls, tunnel):
    there = over_tls(echo_or_drip)
    client = Client(there.url, TIMEOUT_S, 2)
    assert client.send("POST", there.url, {"Authorization": "Bearer of-the-service"}, b"hi").data == b"hi"
    assert tunnel.asked[0].startswith(b"CONNECT localhost:") and b"Basic bWU6c2VjcmV0" in tunnel.asked[0]
    assert b"of-the-service" not in tunnel.asked[0]
    with pytest.raises(NoAnswer, match="--timeout"):
        client.send("POST", there.url, {}, b"slow")


MEMORY = """
import resource, sys
from fastgen.backends.remote.faults import TooLarge
from fastgen.backends.remote.http_client import Client
client = Client(sys.argv[1], 60, 1)
client.send("GET", sys.argv[1] + "/short", {})
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    client.send("GET", sys.argv[1] + "/until", {})
except TooLarge:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) // 1024)
"""


def test_a_long_answer_takes_no_more_memory_than_it_may_have(server):
    def answer(handler, body):
        if handler.path == "/short":
            handler.reply(200, b"x")
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            for _ in range(300):
                handler.wfile.write(bytes(1 << 20))

    there = server(answer)
    done = subprocess.run([sys.executable, "-c", MEMORY, there.url], capture_output=True, text=True, timeout=60)
    assert done.stdout and int(done.stdout) < 100, done.stdout + done.stderr


def test_images_come_only_from_hosts_that_are_allowed(server):
    running = server(lambda handler, body: handler.reply(200, b"image"))
    there = f"http://localhost:{running.port}/a.png"
    own = f"http://127.0.0.1:{running.port}"
    assert Client(own, 5, 1).fetch(there) == b"image", "the service's own machine"
    closed = Client(own, 5, 1, image_hosts=("cdn.example.com", "*.example.net"))
    assert closed.fetch(f"{own}/a.png") == b"image"
    with pytest.raises(NotFetched, match="localhost is not among --allow-image-hosts"):
        closed.fetch(there)
    assert Client(own, 5, 1, image_hosts=("localhost",)).fetch(there) == b"image"
    assert Client(own, 5, 1, image_hosts=("*",)).fetch(there) == b"image"
