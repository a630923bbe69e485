"""Rows that a service or its format cannot do, and answers of a gateway that lead where they must not.

The gateway draws in its chats. It answers with the text that stands in the prompt.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.scenarios.bad_inputs.case import Row

GOOD = {"prompt": "a fox"}
REFUSED = "unsupported"


def row(kind: str, words: str, field: str = "", failure: str = REFUSED, **fields: object) -> Row:
    return Row(kind, {"prompt": "a fox", **fields}, field, words, failure=failure)


def edit(kind: str, words: str, **fields: object) -> Row:
    return Row(kind, {"prompt": "make it blue", "image": "good.png", **fields}, "", words, failure=REFUSED)


OPENAI = [
    row("OpenAI: a size that is not of the grid", "multiples of 16", size="100x100"),
    row("OpenAI: a size that is too large", "gpt-image-2", size="8000x8000"),
    row("OpenAI: an unknown quality", "supports low, medium, high", quality="ultra"),
    row("OpenAI: an unknown background", "supports", background="red"),
    row("OpenAI: an aspect ratio", "use size", aspect_ratio="16:9"),
    row("OpenAI: a resolution", "use size", resolution="2K"),
    row("an option of 101 characters", "no service has", "quality", "input", quality="x" * 101),
    row("a number as option", "must be a string", "quality", "input", quality=7),
]
GEMINI = [
    row("Gemini: a quality", "does not support it", quality="high"),
    row("Gemini: a background", "does not support it", background="opaque"),
    row("Gemini: an unknown aspect ratio", "supports", aspect_ratio="17:9"),
    row("Gemini: an unknown resolution", "supports", resolution="16K"),
]
GEMINI_EDITS = [
    edit("Gemini: a variation", "leave it out", use_variations=True),
    edit("Gemini: 16 images", "at most", images=["good.png"] * 16, image=None),
]


def answer(kind: str, text: str, words: str, failure: str) -> Row:
    return Row(f"an answer with {kind}", {"prompt": text}, "", words, failure=failure)


def answers(url: str) -> list[Row]:
    """Answers of the gateway at `url`, and what is said of them."""
    return [
        answer("an image in a private network", "![a](http://10.0.0.1/a.png)", "private network", REFUSED),
        answer("the address of a cloud's keys", "![a](http://169.254.169.254/latest)", "private network", REFUSED),
        answer("an address by file", "![a](file:///etc/passwd)", "words instead of an image", "refused"),
        answer("an address by ftp", "![a](ftp://127.0.0.1/a.png)", "words instead of an image", "refused"),
        answer("an image that moved to another origin", f"![a]({url}/moved)", "nothing was sent there", REFUSED),
        answer("an image that moves in a circle", f"![a]({url}/circle)", "in a circle", REFUSED),
        answer("an image that is missing", f"![a]({url}/missing)", "answers 404", REFUSED),
        answer("a web page as image", f"![a]({url}/page)", "not an image", "malformed"),
        answer("data that are no image", "![a](data:image/png;base64,AAAA)", "not an image", "malformed"),
        answer("words", "I cannot draw that.", "words instead of an image", "refused"),
    ]


class _Gateway(BaseHTTPRequestHandler):
    picture = b""

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.path.endswith("/chat/completions"):
            return self._send(404, b'{"error": {"message": "Invalid URL", "type": "invalid_request_error"}}')
        text = said["messages"][-1]["content"]
        text = f"![a](http://{self.headers['host']}/good)" if text == GOOD["prompt"] else text
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": said["model"], "choices": [choice]}
        self._send(200, json.dumps(body).encode())

    def do_GET(self) -> None:
        where = {"/moved": "http://127.0.0.2:9/a.png", "/circle": "/circle"}
        if self.path in where:
            return self._send(302, b"", {"location": where[self.path]})
        found = {"/good": self.picture, "/page": b"<!doctype html>"}.get(self.path)
        self._send(200 if found else 404, found or b"")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "content-length": str(len(body)),
            "content-type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def gateway(picture: Path) -> Iterator[str]:
    """The address of a gateway whose good answers have that image."""
    handler = type("Gateway", (_Gateway,), {"picture": picture.read_bytes()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
