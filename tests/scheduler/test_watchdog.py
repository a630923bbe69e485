"""When a worker counts as hung, by a clock that the test turns."""

from __future__ import annotations

import pytest

from fastgen.scheduler import watchdog
from fastgen.scheduler.watchdog import (
    ANSWER_END_S,
    ANSWER_END_TIMES,
    ANSWER_WARN_S,
    BEAT_END_S,
    BEAT_WARN_S,
    FIRST_BEAT_END_S,
    NEW_END_S,
    NEW_WARN_S,
    Watch,
)
from fastgen.types import Batch, Bucket, ImageParams, Request


def batch(size: int = 64, steps: int = 4, rows: int = 1) -> Batch:
    request = Request("a", "t2i", ("a",), ImageParams(size, size, steps, 0.0, 0, 1), (size, size))
    return Batch(Bucket.of(request), (request,) * rows)


class Clock:
    """Looks at a worker second by second, for as long as it says nothing else than `until`."""

    def __init__(self, watch: Watch):
        self.watch, self.beats = watch, 0

    def run(self, seconds: float, held=(), opening=False, beating=True, step: float = 1.0) -> list[tuple[float, str]]:
        """What it wanted, and when."""
        said, now = [], 0.0
        while now < seconds:
            now += step
            self.beats += beating
            if action := self.watch.look(step, self.beats, held, opening):
                said.append((now, action))
                if action == "end":
                    break
        return said


@pytest.fixture
def clock():
    return Clock(Watch())


def test_without_a_beat_it_is_said_and_then_ended(clock):
    clock.watch.answered(batch(), 0.5)
    clock.run(1, [batch()])
    said = clock.run(60, [batch()], beating=False)
    assert said == [(BEAT_WARN_S, "warn"), (2 * BEAT_WARN_S, "warn"), (BEAT_END_S, "end")]
    why = clock.watch.why([batch(rows=2)], opening=False)
    assert "silent for 20 s" in why and "holds 2 rows" in why


def test_a_beat_in_time_is_enough(clock):
    clock.watch.answered(batch(), 0.5)
    for _ in range(20):
        assert not clock.run(BEAT_WARN_S - 2, [batch()], beating=False)
        clock.watch.answered(batch(), 0.5)
        clock.run(1, [batch()])


@pytest.mark.parametrize("opening", [True, False], ids=["opening", "first batch"])
def test_what_opens_or_is_at_its_first_batch_may_be_silent_for_long(clock, opening):
    held = [] if opening else [batch()]
    clock.run(1, held, opening)
    said = clock.run(10_000, held, opening, beating=False)
    assert said[-1] == (FIRST_BEAT_END_S, "end") and {action for at, action in said[:-1]} == {"warn"}


def test_opening_that_beats_is_never_ended_and_is_said_now_and_then(clock):
    said = clock.run(10_000, opening=True)
    assert [at for at, _ in said] == [NEW_WARN_S * 2**i for i in range(6)] and {what for _, what in said} == {"warn"}
    assert "opens its engine" in clock.watch.why([], opening=True)


def test_a_batch_of_a_kind_it_did_before_has_a_limit_learned_from_that(clock):
    clock.watch.answered(batch(steps=10), 100.0)
    limit = ANSWER_END_TIMES * 100.0
    said = clock.run(10_000, [batch(steps=10)])
    assert said[0] == (500, "warn") and said[-1] == (limit, "end")
    assert "such batches took up to 100.0 s" in clock.watch.why([batch(steps=10)], opening=False)


def test_more_steps_have_more_time(clock):
    clock.watch.answered(batch(steps=10), 100.0)
    assert clock.run(10_000, [batch(steps=20)])[-1] == (2 * ANSWER_END_TIMES * 100.0, "end")


def test_quick_batches_leave_a_generous_floor(clock):
    clock.watch.answered(batch(), 0.01)
    said = clock.run(10_000, [batch()])
    assert said[0] == (ANSWER_WARN_S, "warn") and said[-1] == (ANSWER_END_S, "end")


@pytest.mark.parametrize("other", [batch(size=128), batch(rows=2)], ids=["size", "batch size"])
def test_another_kind_may_have_to_be_compiled_first(clock, other):
    clock.watch.answered(batch(), 0.01)
    for held in ([other], [batch(), other]):
        said = clock.run(10_000, held)
        assert said[0] == (NEW_WARN_S, "warn") and said[-1] == (NEW_END_S, "end")
        clock.watch.answered()


def test_an_answer_starts_the_time_anew_and_a_restart_forgets_what_was_learned(clock):
    clock.watch.answered(batch(), 0.01)
    for _ in range(10):
        assert not clock.run(ANSWER_WARN_S - 1, [batch()])
        clock.watch.answered(batch(), 0.01)
    clock.watch.started()
    assert clock.run(10_000, [batch()])[-1] == (NEW_END_S, "end")


def test_workers_of_a_service_are_named_but_not_ended_while_they_beat():
    clock = Clock(Watch(may_end_unanswered=False))
    clock.watch.answered(batch(), 0.01)
    said = clock.run(10_000, [batch()])
    assert said and {action for _, action in said} == {"warn"}
    assert clock.run(60, [batch()], beating=False)[-1][1] == "end", "a stopped process is one all the same"


def test_an_idle_worker_is_not_judged(clock):
    clock.watch.answered(batch(), 0.01)
    assert not clock.run(10_000, beating=False)


def test_time_in_which_nobody_looked_does_not_count(clock):
    """This process was stopped, or its caller was busy with a result for an hour."""
    clock.watch.answered(batch(), 0.01)
    clock.run(1, [batch()])
    assert not clock.watch.look(3600.0, clock.beats, [batch()], opening=False)
    assert clock.watch.silent_s == clock.watch.unanswered_s - 1 == watchdog.LONGEST_TICK_S


def test_a_place_that_gives_no_signs_of_life_is_judged_by_its_answers():
    watch = Watch()
    watch.answered(batch(), 0.01)
    actions = [watch.look(1.0, None, [batch()], opening=False) for _ in range(int(ANSWER_END_S))]
    assert actions[-1] == "end" and actions.index("warn") == ANSWER_WARN_S - 1
