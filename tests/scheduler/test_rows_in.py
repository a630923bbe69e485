"""Rows on their way into the windows: when reading stops, and what ends it."""

from __future__ import annotations

import pytest

from fastgen.errors import DiskError
from fastgen.scheduler.progress import Progress
from fastgen.scheduler.retries import Retries
from fastgen.scheduler.routing import Route
from fastgen.scheduler.rows_in import READ_AHEAD, RowsIn
from fastgen.types import ImageParams, Request


def request(number: int) -> Request:
    return Request(str(number), "t2i", ("a",), ImageParams(64, 64, 4, 0.0, 0, 1), (64, 64))


@pytest.fixture
def rows(settings):
    """rows(items) -> RowsIn that reads them; its route is `rows.route`, its progress `rows.progress`."""

    def make(items) -> RowsIn:
        resolved = settings("t2i")
        make.route, make.progress = Route(resolved), Progress(resolved, None, lambda event, **facts: None)
        return RowsIn(iter(items), make.route, Retries(), make.progress)

    return make


def test_a_backend_that_gets_its_first_row_is_started_before_more_are_read(rows):
    some = rows(map(request, range(1000)))
    assert not list(some.read(0.0, lambda: False))
    [group] = rows.route.to_start
    assert rows.progress.counts["rows"] == 1 and not group.started
    group.started = True
    list(some.read(0.0, lambda: True))
    assert rows.progress.counts["rows"] == 1 + READ_AHEAD, "then in steps, while the loop is wanted elsewhere"
    list(some.read(0.0, lambda: False))
    assert rows.progress.counts["rows"] == 1000 and not some.left and len(rows.route) == 1000


def test_a_full_disk_ends_the_run_and_not_the_requests_that_are_under_way(rows):
    def items():
        yield request(0)
        raise DiskError("cannot write the rows")

    some = rows(items())
    for _ in range(3):
        assert not list(some.read(0.0, lambda: False))
        for group in rows.route.to_start:
            group.started = True
    assert isinstance(rows.progress.ending, DiskError) and rows.progress.counts["rows"] == 1
