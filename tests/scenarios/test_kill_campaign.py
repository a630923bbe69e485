"""Commands of several kinds and their workers, killed at random moments: no row is lost, made twice, altered or paid
twice. `python -m bench.kill_campaign` and `python -m bench.worker_kills` are the same with a thousand kills."""

from __future__ import annotations

import pytest

from bench.kill_campaign import campaign
from bench.worker_kills import storm

BAD = ("lost", "doubled", "altered", "paid_twice", "failed_without_fault", "ended_badly")


def test_commands_and_workers_are_killed(tmp_path):
    pytest.importorskip("openai")
    found = campaign(tmp_path, kills=8, seed=5, kinds=("edit", "api"), rows=30, each=4)
    assert found["kills"] == 8 and found["rows"] >= 60
    assert {name: found[name] for name in BAD} == dict.fromkeys(BAD, 0)


def test_workers_are_killed_and_the_poison_rows_are_found(tmp_path):
    found = storm(tmp_path, workers=4, rows=250, every_s=0.3, seconds=3.0, slow_s=0.08)
    assert found["kills"] and len(found["poison"]) == 3
    assert not found["lost"] and not found["doubled"] and not found["failed_without_fault"]
