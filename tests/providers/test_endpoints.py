"""Keys and addresses are found, and what is missing or cannot be sent is said without telling the key."""

from __future__ import annotations

import pytest

from fastgen import providers
from fastgen.config import backends
from fastgen.errors import SettingsError
from fastgen.providers import endpoints, vllm
from tests.providers.conftest import connect

pytestmark = pytest.mark.usefixtures("environment")


@pytest.mark.parametrize(
    "backend, variables, given, key, url",
    [
        ("openai", {"OPENAI_API_KEY": "k"}, None, "OPENAI_API_KEY", ""),
        (
            "openai",
            {"OPENAI_API_KEY": "k", "DF_API_KEY": "d", "DF_BASE_URL": "http://d/v1"},
            None,
            "OPENAI_API_KEY",
            "",
        ),
        ("openai", {"DF_API_KEY": "d", "DF_BASE_URL": "http://d/v1"}, None, "DF_API_KEY", "http://d/v1"),
        ("openai", {"DF_API_KEY": "d", "OPENAI_BASE_URL": "http://o/v1"}, None, "DF_API_KEY", "http://o/v1"),
        (
            "openai",
            {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://o/v1"},
            "http://g/v1",
            "OPENAI_API_KEY",
            "http://g/v1",
        ),
        ("openai", {}, "http://g:1", "", "http://g:1/v1"),
        ("openai", {}, "http://g:1/other/", "", "http://g:1/other"),
        ("gemini", {"GEMINI_API_KEY": "k", "GOOGLE_API_KEY": "g"}, None, "GEMINI_API_KEY", ""),
        ("gemini", {"GOOGLE_API_KEY": "g", "GOOGLE_GEMINI_BASE_URL": "http://q"}, None, "GOOGLE_API_KEY", "http://q"),
        ("gemini", {"DF_API_KEY": "d", "DF_BASE_URL": "http://d/v1"}, None, "DF_API_KEY", "http://d/v1"),
    ],
)
def test_keys_and_addresses(environment, backend, variables, given, key, url):
    for name, value in variables.items():
        environment(name, value)
    card, endpoint, notes = connect(backend, base_url=given)
    assert (endpoint.key_name, endpoint.base_url) == (key, url)
    assert card.name == providers.data()[backend]["auto"]["t2i"] and (card.family, card.grid) == ("api", 1)
    assert bool(key) or any("without a key" in note for note in notes)


@pytest.mark.parametrize(
    "backend, name", [("openai", "OPENAI_API_KEY"), ("gemini", "DF_API_KEY"), ("vllm", "VLLM_API_KEY")]
)
def test_a_key_that_cannot_be_sent_is_refused_without_telling_it(environment, backend, name):
    for broken in ("se\ncret", "sécret"):
        environment(name, broken)
        with pytest.raises(SettingsError, match=name) as caught:
            connect(backend, "caption", "a-vlm", "http://127.0.0.1:9/v1")
        assert "cret" not in str(caught.value)
    environment(name, " secret\r\n")
    connect(backend, "caption", "a-vlm", "http://127.0.0.1:9/v1")
    assert providers.key_of(name) == "secret", "the line break of the file that it came from is no part of it"


def test_where_a_version_stands_in_an_address():
    cases = {
        "http://a/v1": ("http://a", "v1"),
        "http://a/x/v1beta/": ("http://a/x", "v1beta"),
        "http://a": ("http://a", ""),
        "": ("", ""),
    }
    assert {given: providers.gemini_endpoint(given) for given in cases} == cases


def test_what_is_missing_is_named(environment, monkeypatch):
    for backend, said in (
        ("openai", "OPENAI_API_KEY or DF_API_KEY"),
        ("gemini", "GEMINI_API_KEY or GOOGLE_API_KEY or DF_API_KEY"),
    ):
        with pytest.raises(SettingsError, match=said):
            connect(backend)
    environment("GEMINI_API_KEY", "k")
    with pytest.raises(SettingsError, match="--model"):
        connect("gemini", "caption")
    with pytest.raises(SettingsError, match="--base-url ftp"):
        connect("gemini", base_url="ftp://a")
    for backend in ("openai", "gemini", "vllm"):
        for address, said in (
            ("http://[a", "not an address"),
            ("http://u:secret@a/v1", "password"),
            ("http://a:b/v1", "not an address"),
        ):
            with pytest.raises(SettingsError, match=said) as caught:
                connect(backend, "caption", "a-vlm", address)
            assert "secret" not in str(caught.value)
    monkeypatch.setattr(providers.endpoints, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"google-genai is not installed; run pip install google-genai"):
        connect("gemini")


@pytest.mark.parametrize(
    "backend, model, says",
    [
        ("openai", "dall-e-3", "was shut down on 2026-05-12; its successor is gpt-image-2"),
        ("openai", "gpt-image-1", "was shut down on 2026-10-23"),
        ("openai", "gpt-4o", "2027-01-14"),
        ("gemini", "gemini-3-pro-image-preview", "was shut down on 2026-06-25; its successor is gemini-3-pro-image"),
        ("gemini", "gemini-2.5-flash-image", "sources disagree"),
        ("openai", "my-own", "not among the models"),
        ("openai", "gpt-image-2-2026-04-21", ""),
        ("gemini", "models/gemini-3-pro-image", ""),
    ],
)
def test_what_is_said_of_a_model(environment, backend, model, says):
    environment("DF_API_KEY", "k")
    card, _, notes = connect(backend, model=model)
    said = [note for note in notes if note.startswith("--model")]
    assert card.name == model and (says in said[0] if says else not said)


@pytest.mark.parametrize("end", ["/chat/completions", "/chat/completions/", "/images/generations", "/images/edits", ""])
def test_the_part_that_requests_add_is_left_out_of_an_address(end):
    assert endpoints.path_of(f"http://host/v1{end}", "--base-url") == "v1"
    assert endpoints.path_of(f"http://host{end}", "--base-url") == ""
    url = f"http://host/openai/deployments/m{end}?api-version=2024-10-21"
    assert vllm.locate(backends.get("vllm"), "caption", "m", False, url, None)[1].base_url == (
        "http://host/openai/deployments/m?api-version=2024-10-21"
    )


@pytest.mark.parametrize(
    "url", ["http://user:pa/ss@host:80/v1", "https://user:pa/ss@host:99999/v1", "http://pa-ss@host/v1"]
)
def test_a_password_in_an_address_is_said_nowhere(url):
    with pytest.raises(SettingsError) as error:
        endpoints.path_of(url, "--base-url")
    assert "pa/ss" not in str(error.value) and "pa-ss" not in str(error.value)
