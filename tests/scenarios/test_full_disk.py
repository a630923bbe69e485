"""A disk that fills up while requests are under way: what they bring is kept, and nothing is paid twice."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from fastgen.errors import DiskError
from fastgen.resolver import resolve
from tests.simulator import Simulator

pytest.importorskip("openai")
KEY = "test-key"
ROWS = 120


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("OPENAI_BASE_URL", "DF_API_KEY", "DF_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def service():
    with Simulator(keys={KEY}, latency_s=0.1) as simulator:
        yield simulator


def asked(service: Simulator) -> Counter[str]:
    return Counter(request.prompt for request in service.requests if request.operation == "generate")


@pytest.mark.parametrize("filled", ["by the run", "at once"])
def test_each_row_is_paid_for_once(service, rows_file, small_disk, go, table, filled):
    path = rows_file([{"id": f"r{i}", "prompt": f"picture {i}"} for i in range(ROWS)])
    out = small_disk.path / "out"
    settings = resolve(
        "t2i",
        path,
        out=out,
        backend="openai",
        model="gpt-image-2",
        base_url=service.openai_url,
        quality="low",
        size="1024x1024",
        max_inflight=8,
    )

    def fill_up() -> None:
        """When some are under way."""
        while sum(asked(service).values()) < 6:
            time.sleep(0.01)
        with (small_disk.path / "ballast").open("wb", 0) as ballast, pytest.raises(OSError, match="No space left"):
            while ballast.write(b"x" * 4096):
                pass

    if filled == "at once":
        threading.Thread(target=fill_up, daemon=True).start()
    with pytest.raises(DiskError, match="No space left"):
        go(settings)
    before = asked(service)
    assert 0 < len(before) < ROWS and set(before.values()) == {1}
    assert len(table(out / "journal.jsonl")) == len(before), "whatever was asked for is kept"
    small_disk.grow()
    run = go(settings)
    assert run.counts["done"] == ROWS and set(asked(service).values()) == {1}
    spent = table(out / "spending.jsonl")[-1]["rec"]["total"]
    assert spent == pytest.approx(service.ledger_usd, rel=1e-6)
