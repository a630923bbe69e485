"""The message of a failed row names the row, the host and the fix."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fastgen.backends.remote.failure_words import told
from fastgen.types import Failed

CONNECTION = (
    "no answer: NewConnectionError: _Http(host='h', port=9): no connection to h: [Errno 111] Connection refused"
)


@pytest.fixture
def openai(tmp_path, monkeypatch):
    from fastgen.resolver import resolve

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    return lambda url: resolve("t2i", backend="openai", base_url=url, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "message", "url", "words"),
    [
        (
            "unavailable",
            CONNECTION,
            "http://h:9/v1",
            "row 7, h:9: no answer: no connection to h: Connection refused; check --base-url and that the service runs",
        ),
        ("unavailable", "503: overloaded", None, "row 7, OpenAI: 503: overloaded"),
        ("unauthorized", "401: no", None, "row 7, OpenAI: 401: no; check the key in OPENAI_API_KEY"),
        ("quota", "402: no", None, "row 7, OpenAI: 402: no; add credit to the account, or name a --fallback"),
        ("gone", "404: no", "http://h/v1", "row 7, h: 404: no; check --model and --base-url"),
        ("refused", "400: no", None, "row 7, OpenAI: 400: no"),
        ("input", "the size is odd", None, "the size is odd"),
    ],
)
def test_row_host_and_fix(openai, kind, message, url, words):
    failed = Failed("a", kind, message)
    assert told(failed, openai(url), 7) == words
    assert told(replace(failed, attempts=0), openai(url), 7).startswith(words.partition(": ")[2][:6]) or kind == "input"


def test_without_a_number_the_host_alone_is_named(openai):
    assert told(Failed("a", "refused", "400: no"), openai(None), 0) == "OpenAI: 400: no"
