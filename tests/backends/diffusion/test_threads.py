"""In which order the engine's threads do the stages of waiting works."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from fastgen.backends.diffusion.threads import EngineThreads

STAGES = ("text", "transformer", "vae")


@pytest.fixture
def threads():
    made = []

    def make(**options) -> EngineThreads:
        made.append(EngineThreads(1, lambda: None, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def work(name: str, done: list[str], begin: threading.Event, stages=STAGES):
    begin.wait(10)
    for part in stages:
        yield (part,)
        done.append(f"{name} {part}")
    return name


def run(engine: EngineThreads, names: str, **options) -> list[str]:
    done: list[str] = []
    begin = threading.Event()
    futures = [engine.submit(work(name, done, begin, **options)) for name in names]
    begin.set()
    assert [future.result(10) for future in futures] == list(names)
    return done


def test_one_after_the_other(threads):
    assert run(threads(by_parts=False), "ab") == [f"{name} {part}" for name in "ab" for part in STAGES]


def test_what_needs_the_same_part_is_done_together(threads):
    want = [f"{name} {part}" for part in STAGES for name in "abc"]
    engine = threads(by_parts=True)
    assert run(engine, "abc") == want and run(engine, "abc") == want


def test_turns_of_an_edit_share_visits(threads):
    """What is decoded is encoded again for the next turn, while the VAE is there."""
    stages = ("text", "vae", "transformer", "vae", "vae", "transformer", "vae")
    done = [line.split()[1] for line in run(threads(by_parts=True), "ab", stages=stages)]
    moves = sum(one != other for one, other in pairwise(done))
    assert moves == 5, "as often as for one alone"


def test_no_part_stays_for_ever(threads):
    done = run(threads(by_parts=True, longest_turn_s=0.0), "ab")
    assert done.index("a vae") < done.index("b vae") and sorted(done) == sorted(
        f"{name} {part}" for name in "ab" for part in STAGES
    )


@pytest.mark.parametrize("by_parts", [False, True])
def test_one_that_fails_fails_alone(threads, by_parts):
    def broken():
        yield ("text",)
        raise MemoryError("none")

    engine = threads(by_parts=by_parts)
    future = engine.submit(broken())
    with pytest.raises(MemoryError):
        future.result(10)
    assert run(engine, "a") == [f"a {part}" for part in STAGES]
