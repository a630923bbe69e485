"""Keys in addresses: found wherever they stand, and told nowhere; what is no key is let through."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from fastgen.errors import SettingsError
from fastgen.providers.addresses import bare, secret_in
from tests.providers.conftest import connect

SECRET = "s3cr3tValueThatNobodyMaySee"


@pytest.mark.parametrize(
    "url",
    [
        f"http://a/v1?key={SECRET}",
        "http://a/v1?key=short",
        f"http://a/v1?api_key={SECRET}",
        f"http://a/v1?api-key={SECRET}",
        f"http://a/v1?apiKey={SECRET}",
        f"http://a/v1?subscription-key={SECRET}",
        f"http://a/v1?api-version=2025-04-01-preview&sig={SECRET}",
        f"http://a/v1?X-Amz-Signature={SECRET}",
        f"http://a/v1?access_token={SECRET}",
        f"http://a/v1?code={SECRET}",
        f"http://a/v1?x={SECRET}",
        "http://a/v1?x=sk-abcdefghijklmnop",
        "http://a/v1?x=%73k-abcdefghijklmnop",
        "http://a/AIzaSyA1234567890abcdefghijk/v1",
        f"http://a/v1#{SECRET}",
        f"http://me:{SECRET}@a/v1",
        f"http://{SECRET}@a/v1",
        "http://a/my-own-word-of-power/v1",
    ],
)
def test_a_key_in_an_address_is_refused_and_not_told(url, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "my-own-word-of-power")
    assert secret_in(urlsplit(url), ["my-own-word-of-power"])
    for backend in ("openai", "gemini", "vllm"):
        monkeypatch.setenv("DF_API_KEY", "k")
        with pytest.raises(SettingsError, match="--base-url") as caught:
            connect(backend, "caption", "a-vlm", url)
        said = str(caught.value)
        assert not any(part in said for part in (SECRET, "short", "abcdefghijklmnop", "AIzaSy", "word-of-power"))
        assert "environment" in said


@pytest.mark.parametrize("url", [f"ftp://a/v1?key={SECRET}", f"a/v1?key={SECRET}", f"http://[a?key={SECRET}"])
def test_what_is_no_address_is_told_without_its_query(url, monkeypatch):
    monkeypatch.setenv("DF_API_KEY", "k")
    for backend in ("openai", "vllm"):
        with pytest.raises(SettingsError, match="--base-url") as caught:
            connect(backend, "caption", "a-vlm", url)
        assert SECRET not in str(caught.value)
    assert bare(f"http://me:{SECRET}@a") == "" and "hijk" not in bare("a/AIzaSyA1234567890abcdefghijk/v1")


@pytest.mark.parametrize(
    "url, becomes",
    [
        ("http://a:8000/v1", "http://a:8000/v1"),
        ("http://a/openai/v1/?api-version=2025-04-01-preview", "http://a/openai/v1?api-version=2025-04-01-preview"),
        ("http://a?api-version=preview", "http://a/v1?api-version=preview"),
        ("http://a/v1?deployment=our-flux-deployment-number-2", "http://a/v1?deployment=our-flux-deployment-number-2"),
        ("http://a/compatible-mode/v1", "http://a/compatible-mode/v1"),
    ],
)
def test_what_is_no_key_stays(url, becomes, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    _, endpoint, _ = connect("openai", "caption", "a-vlm", url)
    assert endpoint.base_url == becomes
