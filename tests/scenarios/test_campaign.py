"""A paid run that is stopped in every way: nothing is paid twice but by a kill, and the ledger has what the service
counted. `python -m bench.api_campaign` is the same with 5,000 rows."""

from __future__ import annotations

import pytest

from bench.api_campaign import SAME_USD, campaign

pytest.importorskip("openai")


def test_full_disk_kills_and_ctrl_c(tmp_path):
    try:
        found = campaign(tmp_path, rows=120, full=1, kills=2, ctrl_c=1, at_once=8, seed=1)
    except OSError as error:
        pytest.skip(f"cannot mount a small disk: {error}")
    assert not found["faults"], found
    assert found["done"] == found["rows"] == 120 and found["stops"] == {"full": 1, "kill": 2, "ctrl-c": 1}
    assert found["paid_twice"]["full"] == found["paid_twice"]["ctrl-c"] == 0
    assert 0 < found["paid_twice"]["kill"] <= 2 * 8
    assert sum(found["in_flight_at_each_kill"]) <= 2 * 8
    if not found["sent_but_never_arrived"]:
        assert found["ledger_usd"] == pytest.approx(found["service_usd"], abs=SAME_USD)
