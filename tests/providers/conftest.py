"""No keys and addresses but those that a test sets; the SDKs count as installed."""

from __future__ import annotations

from importlib import import_module

import pytest

from fastgen import providers
from fastgen.config import backends
from fastgen.resolver import resolve
from fastgen.types import ImageParams, Request

VARIABLES = (
    "OPENAI_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "DF_API_KEY",
    "DF_BASE_URL",
    "OPENAI_BASE_URL",
    "GOOGLE_GEMINI_BASE_URL",
    providers.OVERRIDE,
)


@pytest.fixture
def environment(monkeypatch):
    """environment(name, value) sets a variable."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(providers.endpoints, "find_spec", lambda name: name)
    return monkeypatch.setenv


@pytest.fixture
def made(environment):
    """made(backend, task, **flags) -> Settings."""

    def make(backend, task="t2i", **flags):
        environment("OPENAI_API_KEY", "a")
        environment("GEMINI_API_KEY", "b")
        return resolve(task, None, backend=backend, **flags)

    return make


def request_for(task="t2i", prompts=("a cat",), size=(0, 0), n=1, images=0, mask="", **words):
    params = ImageParams(*size, 28, 3.5, 0, n, **words)
    return Request("a", task, prompts, params, images=tuple("abcdefghijklmnopqrs"[:images]), mask=mask)


def connect(backend, task="t2i", model="auto", base_url=None):
    spec = backends.get(backend)
    module, _, name = spec.locate.partition(":")
    return getattr(import_module(module), name)(spec, task, model, False, base_url, None)
