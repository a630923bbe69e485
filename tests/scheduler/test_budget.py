"""What was spent stays spent, and the limit is never passed."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from fastgen.errors import DiskError
from fastgen.scheduler.budget import SPENDING, Ledger


def test_what_may_still_be_spent(tmp_path):
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:
        assert ledger.reserve("a", 0.6) and not ledger.reserve("b", 0.5)
        assert ledger.reserve("c", 0.4) and not ledger.reserve("d", 0.01)
        ledger.settle("a", 0.1)
        assert ledger.reserve("b", 0.5) and (round(ledger.spent, 6), round(ledger.reserved, 6)) == (0.1, 0.9)
        ledger.settle("b", None)
        ledger.settle("c", 0.0)
        assert round(ledger.spent, 6) == 0.6 and ledger.reserved == 0


def test_a_killed_run_has_spent_what_it_had_set_aside(tmp_path):
    with closing(Ledger(tmp_path, limit=0.0)) as ledger:
        ledger.reserve("a", 0.2)
        ledger.settle("a", 0.15)
        ledger.reserve("b", 0.2)
    with (tmp_path / SPENDING).open("ab") as file:
        file.write(b'{"id": "to')  # torn
    with closing(Ledger(tmp_path, limit=0.5)) as ledger:
        assert round(ledger.spent, 6) == 0.35 and ledger.reserved == 0
        assert not ledger.reserve("c", 0.2) and ledger.reserve("c", 0.15)


def test_what_follows_a_torn_line_is_not_lost_with_it(tmp_path):
    (tmp_path / SPENDING).write_bytes(b'{"id": "to')
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:
        assert ledger.reserve("a", 0.7)  # and then it is killed
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:
        assert ledger.spent == 0.7 and not ledger.reserve("b", 0.5)


def test_a_full_disk_is_told_before_anything_is_sent(tmp_path, monkeypatch):
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:
        assert ledger.reserve("a", 0.1)
        real = os.write
        monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:5]))
        with pytest.raises(DiskError):
            ledger.reserve("b", 0.1)


def test_what_is_free_leaves_no_trace(tmp_path):
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:
        assert ledger.reserve("a", 0.0)
        ledger.settle("a", 0.0)
    assert not (tmp_path / SPENDING).exists()
