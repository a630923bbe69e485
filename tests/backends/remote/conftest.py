"""Loopback servers that answer as a test says, byte by byte if need be."""

from __future__ import annotations

import base64
import io
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from PIL import Image


def png(size: tuple[int, int] = (64, 64), colour: str = "red") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, "PNG")
    return written.getvalue()


def image_answer(*pictures: dict) -> bytes:
    return json.dumps(
        {"created": 1, "data": list(pictures or [{"b64_json": base64.b64encode(png()).decode()}])}
    ).encode()


def chat_answer(text: str = "a red house") -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    about = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**about, "choices": [choice], "usage": usage}).encode()


def gemini_answer(*parts: dict) -> bytes:
    drawn = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(png()).decode()}}
    content = {"role": "model", "parts": list(parts or [drawn])}
    return json.dumps({"candidates": [{"content": content, "finishReason": "STOP"}]}).encode()


@contextmanager
def serving(
    answer: Callable[[BaseHTTPRequestHandler, bytes], None], tls: ssl.SSLContext | None = None
) -> Iterator[SimpleNamespace]:
    """A server on a free port: `answer(handler, body)` writes what comes back; `.seen` has what came."""
    seen: list[SimpleNamespace] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append(SimpleNamespace(method=self.command, path=self.path, headers=dict(self.headers), body=body))
            try:
                answer(self, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        do_GET = do_POST

        def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *about): ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def finish_request(self, request, client_address):
            if tls is not None:  # in the thread of the connection, so that a handshake holds up no other
                request = tls.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)

        def handle_error(self, request, client_address): ...

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", port=server.server_port, seen=seen)
        server.shutdown()
        thread.join()


@pytest.fixture
def server():
    """server(answer) -> a running one, ended with the test."""
    started = []

    def start(answer, tls=None):
        context = serving(answer, tls)
        started.append(context)
        return context.__enter__()

    yield start
    for context in started:
        context.__exit__(None, None, None)
