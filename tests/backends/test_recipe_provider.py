"""The recipe "a provider that speaks OpenAI's format" of docs/design.md, followed word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgen.config import backends
from fastgen.config.backends import BackendSpec, Service
from fastgen.errors import SettingsError
from fastgen.providers import pricing
from fastgen.resolver import resolve
from tests.simulator import Simulator

pytest.importorskip("openai")
ROOT = Path(__file__).parents[2]
SECTION = """
[together]
auto = { t2i = "gpt-image-2" }
[together.models.gpt-image-2]
tasks = ["t2i"]
sizes = ["1024x1024"]
[together.models.gpt-image-2.price]
image_out = 10.0
"""


@pytest.fixture
def server():
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def together(monkeypatch, tmp_path, server):
    """Registered, with its section in a file of the user's and its key in the environment."""
    monkeypatch.setattr(backends, "_by_name", dict(backends._by_name))
    (tmp_path / "services.toml").write_text(SECTION)
    monkeypatch.setenv("FASTGEN_SERVICES", str(tmp_path / "services.toml"))
    monkeypatch.setenv("TOGETHER_API_KEY", "test-key")
    for name in ("TOGETHER_BASE_URL", "DF_API_KEY", "DF_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    openai = backends.get("openai")
    spec = BackendSpec(
        "together",
        ("t2i", "edit", "caption"),
        openai.engines,
        openai.locate,
        is_remote=True,
        provider="together",
        service=Service(
            "Together", ("TOGETHER_API_KEY",), "TOGETHER_BASE_URL", "openai", base_url=server.openai_url, path="/v1"
        ),
        max_inflight=8,
    )
    backends.register(spec)
    return spec


def test_rows_go_to_its_own_address_under_its_own_key(together, server, tmp_path, rows_file, go, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "somebody-else's")
    rows = rows_file([{"prompt": "a fox"}, {"prompt": "a boat"}])
    settings = resolve("t2i", rows, backend="together", out=tmp_path / "out")
    assert settings.model.name == "gpt-image-2" and settings.endpoint.max_inflight == 8
    assert (settings.endpoint.base_url, settings.endpoint.key_name) == (server.openai_url, "TOGETHER_API_KEY")
    assert pricing.price(settings).image_out == 10.0
    done = go(settings)
    assert not done.failures
    assert [row["fastgen"]["backend"] for row in done.table] == ["together"] * 2
    assert all((done.out / row["images"][0]).exists() for row in done.table)
    assert "steps" not in done.table[0]["fastgen"], "a service is told no steps"


def test_it_never_becomes_another_backend(together, tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="--backend togther: for t2i one of local, openai, gemini, together"):
        resolve("t2i", backend="togther", base_url="http://127.0.0.1:9/v1", out=tmp_path)
    with pytest.raises(SettingsError, match="size 512x512: gpt-image-2 supports 1024x1024"):
        resolve("t2i", backend="together", size="512x512", out=tmp_path)
    monkeypatch.delenv("TOGETHER_API_KEY")
    with pytest.raises(SettingsError, match="--backend together: no key; set TOGETHER_API_KEY or DF_API_KEY"):
        resolve("t2i", backend="together", out=tmp_path)
    as_fallback = resolve("t2i", fallback="together@http://127.0.0.1:9", gpus="cpu", model="tiny", out=tmp_path)
    assert as_fallback.fallbacks[0].endpoint.base_url == "http://127.0.0.1:9/v1"
    assert as_fallback.fallbacks[0].backend.is_remote
