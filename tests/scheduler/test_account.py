"""Where the time of a worker went, and what was lost to what."""

from __future__ import annotations

from fastgen.scheduler.account import MOST_REASONS, OTHER, Account
from fastgen.scheduler.pace import Pace


def test_time_is_shared_out_over_restarts():
    pace = Pace()
    account = Account(pace)
    account.started(100.0)
    account.opened(110.0)  # ten seconds of loading
    pace.got(2)
    pace.answered(2, since_s=115.0, now_s=125.0)  # ten of work, after five without
    account.rows += 2
    account.died("killed by SIGKILL\nlog", rows=3, since_s=120.0, now_s=130.0)  # five were in vain
    account.started(130.0)
    assert account.summary(134.0) == {
        "rows": 2,
        "busy": 0.5,
        "busy_seconds": 10.0,
        "loading_seconds": 14.0,
        "idle_seconds": 5.0,
        "lost_seconds": 5.0,
        "restarts": 1,
        "lost_rows": {"killed by SIGKILL": 3},
    }
    account.opened(135.0)
    assert account.summary(141.0, since_s=138.0)["busy_seconds"] == 13.0, "what it has now counts too"


def test_a_worker_that_never_started_has_no_time():
    summary = Account(Pace()).summary(50.0)
    assert summary["busy"] == 0.0 and summary["restarts"] == 0 and "lost_rows" not in summary


def test_few_reasons_are_kept():
    account = Account(Pace())
    for number in range(MOST_REASONS + 5):
        account.died(f"reason {number}", 1, None, 0.0)
    assert len(account.lost) == MOST_REASONS + 1 and account.lost[OTHER] == 5
