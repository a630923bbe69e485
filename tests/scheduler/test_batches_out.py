"""What --max-cost lets through of a large batch."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace

import pytest

from fastgen import providers
from fastgen.resolver import resolve
from fastgen.scheduler.batches_out import BatchesOut
from fastgen.scheduler.budget import Ledger
from fastgen.scheduler.routing import Group
from fastgen.types import Batch, Bucket, Request, TextParams


@pytest.fixture
def parts(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    settings = resolve("caption", None, out=tmp_path, backend="openai", model="gpt-6-luna", batch_api=True)
    rows = tuple(Request(f"r{i}", "caption", (), TextParams(100, 0.0, 0), dialogue=(("user", "x"),)) for i in range(4))
    each = providers.estimate(settings, rows[0])
    pool = SimpleNamespace(in_flight=False)
    with closing(Ledger(tmp_path, limit=2.5 * each)) as ledger:
        out = BatchesOut(None, pool, None, ledger, None, None)
        yield SimpleNamespace(
            out=out,
            pool=pool,
            ledger=ledger,
            each=each,
            rows=rows,
            group=Group(settings, 0),
            batch=Batch(Bucket.of(rows[0]), rows),
        )


def test_as_many_rows_as_the_money_allows(parts):
    first = parts.out._afforded(parts.group, parts.batch, {})
    assert first.requests == parts.rows[:2]
    assert [batch.requests for batch in parts.group.queue] == [parts.rows[2:]]
    assert parts.ledger.reserved == pytest.approx(2 * parts.each)


def test_what_is_in_flight_may_leave_money_over(parts):
    parts.pool.in_flight, over = True, {}
    assert parts.out._afforded(parts.group, parts.batch, over) is None
    assert over == {parts.group: parts.batch} and parts.group.queue[0] is parts.batch and not parts.ledger.reserved


def test_rows_that_are_at_the_service_cost_nothing_more(parts):
    first = parts.out._afforded(parts.group, parts.batch, {})
    assert parts.out._afforded(parts.group, first, {}) is first
    assert parts.ledger.reserved == pytest.approx(2 * parts.each)


def test_no_money_for_a_single_row(parts):
    parts.ledger.limit = parts.each / 2
    over: dict = {}
    assert parts.out._afforded(parts.group, parts.batch, over) is None and parts.group in over
    assert len(parts.group.queue) == 1
