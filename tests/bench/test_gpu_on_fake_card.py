"""bench.gpu takes the branches that it takes on a GPU, on a card that does not exist (tests/rehearsal)."""

from __future__ import annotations

import pytest

from bench.gpu import __main__ as command
from bench.gpu import correct, models, report, speed
from bench.gpu.state import State
from tests.rehearsal import cards, engine

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]
CARD = cards.BY_GB[80]


@pytest.fixture
def state(tmp_path, monkeypatch):
    """Small models, and one short measurement of each kind."""
    folder = models.folder
    monkeypatch.setattr(models, "folder", lambda out, name, _: folder(out, name, "cpu"))
    monkeypatch.setattr(speed, "CELLS", {"cuda": (("64x64", 2),)})
    monkeypatch.setattr(speed, "ROUNDS", 1)
    monkeypatch.setitem(speed.STEPS, "cuda", 2)
    monkeypatch.setitem(speed.UNKNOWN_S, "cuda", 0.0)
    with cards.installed(CARD, tmp_path / "bin"):
        yield State(tmp_path / "out")


def cells(state: State, *parts: str, answer: float = 0.0) -> dict[tuple[str, str], dict]:
    with engine.prepared(CARD, answer):
        for part in parts:
            assert command.one(state, part, "cuda") == 0
            assert state.is_finished(part), part
    return {(cell["part"], cell["name"]): cell for cell in state.cells()}


def test_the_environment_names_the_card_and_one_product_is_checked(state):
    found = cells(state, "environment", answer=1024.0)["environment", "environment"]
    assert (found["gpu"], found["compute_capability"], found["cuda"]) == (CARD.name, "9.0", "13.0")
    assert found["checked"] == 1024.0


def test_a_card_that_multiplies_wrongly_is_named(state):
    with engine.prepared(CARD, 1.0), pytest.raises(ValueError, match=r"1\.0 instead of 1024"):
        correct._environment("cuda")


def test_the_settings_are_those_of_a_long_run(state):
    """A short one would not compile, and a GPU is not rented for a few images."""
    path = models.folder(state.folder, "flux-dev", "cuda")
    how = {"steps": 28, "size": "1024x1024", **speed.ARMS["exact"]}
    compiles = [
        models.resolve(state.folder, "t2i", path, "cuda", rows=rows, **how).optimizations.compile.on
        for rows in (1, speed.ROWS["cuda"])
    ]
    assert compiles == [False, True]
    found = models.resolve(state.folder, "t2i", path, "cuda", **speed.ARMS["fast without cache"]).optimizations
    assert (found.quantize.transformer, found.stepcache.kind) == ("fp8", "none")


def test_every_kernel_and_kind_is_compared_or_refused(state):
    found = cells(state, "attention", "quantize")
    assert {found["attention", name]["status"] for name in ("native", "math", "efficient", "cudnn")} == {"done"}
    assert found["attention", "native"]["finite"]
    assert "not installed" in found["attention", "flash3"]["refused"]
    kinds = {kind: found["quantize", kind] for kind in ("fp8", "int8", "8bit", "4bit")}
    assert {kind: cell.get("error") for kind, cell in kinds.items()} == dict.fromkeys(kinds)
    assert "refused" not in found["quantize", "fp8"]


def test_parity_speed_and_trace(state):
    found = cells(state, "parity", "speed flux-dev fast", "speed flux-kontext exact", "trace")
    failed = {
        place: cell.get("traceback", cell["error"]) for place, cell in found.items() if cell["status"] == "failed"
    }
    assert not failed
    assert all(cell["right"] for (part, _), cell in found.items() if part == "parity")
    assert found["speed flux-dev fast", "64x64 x2"]["peak_reserved_gib"] > cards.CONTEXT_GIB
    assert (state.folder / found["trace", "exact"]["file"]).stat().st_size > 1000
    with engine.prepared(CARD):
        report.write(state, "cuda")
    page = (state.folder / "results.md").read_text()
    assert "Where the time goes, exact" in page and "| 64x64 x2 |" in page
