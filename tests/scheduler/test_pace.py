"""A slow worker gets no batch that would keep all others waiting; somebody always gets it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastgen.scheduler.pace import LastBatches, Pace


def pace(each_s: float, samples: int = 0) -> Pace:
    return Pace(samples, 10, 10 * each_s)


def test_a_slow_worker_gets_nothing_that_the_others_would_end_sooner():
    fast, slow = [pace(1.0, 4), pace(1.0, 4), pace(1.0, 4)], pace(5.0)
    early = LastBatches([*fast, slow], left=100, batch=4)
    assert early.should_have(slow) and all(map(early.should_have, fast)), "20 s against 37 s"
    late = LastBatches([*fast, slow], left=8, batch=4)
    assert not late.should_have(slow) and all(map(late.should_have, fast)), "20 s against 7 s"


def test_workers_of_about_one_pace_are_not_told_apart():
    last = LastBatches([pace(1.0, 8), pace(1.4, 0)], left=1, batch=1)
    assert last.should_have(pace(1.4, 0)) and last.should_have(pace(1.0, 8))


def test_a_worker_without_an_answer_is_not_judged():
    assert LastBatches([pace(1.0), Pace()], left=4, batch=4).should_have(Pace())


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 20)), min_size=1, max_size=6),
    st.integers(1, 50),
    st.integers(1, 8),
)
def test_somebody_always_gets_the_next_batch(workers, left, batch):
    paces = [pace(*worker) for worker in workers]
    last = LastBatches(paces, left, batch)
    assert any(map(last.should_have, paces))


def test_only_time_with_work_counts():
    one = Pace()
    one.got(4)
    one.got(4)
    one.answered(4, since_s=100.0, now_s=104.0)
    one.answered(4, since_s=100.0, now_s=104.0)  # both were computed together
    assert one.each_s == 0.5 and one.samples == 0
    one.got(4)
    one.answered(4, since_s=200.0, now_s=202.0)
    assert one.each_s == 0.5
    one.got(4)
    one.lost()
    assert one.samples == 0
