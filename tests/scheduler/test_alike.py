"""When rows are refused, and when the settings are at fault."""

from __future__ import annotations

from types import SimpleNamespace

from fastgen.scheduler.alike import MOST, MOST_HELD, Alike
from fastgen.types import Failed, Request, TextParams

FIRST = SimpleNamespace(position=0)


def row(number: int) -> Request:
    return Request(str(number), "caption", (), TextParams(1, 0.0, 0))


def hold(alike: Alike, number: int, message: str, kind="input", group=FIRST) -> bool:
    return alike.hold(row(number), Failed(str(number), kind, message), group)


def test_ten_rows_refused_alike_are_the_fault_of_the_settings():
    alike = Alike()
    for number in range(MOST):
        assert not alike.verdict(FIRST)
        assert hold(alike, number, f"400: System role not supported (request {number})")
    assert "the first 10 rows are refused alike" in alike.verdict(FIRST) and "--system ''" in alike.verdict(FIRST)
    assert [request.id for request in alike.take_back(FIRST)] == [str(number) for number in range(MOST)]
    assert alike.close() == []


def test_once_a_row_is_done_the_rows_are_at_fault():
    alike = Alike()
    for number in range(MOST - 1):
        hold(alike, number, "400: no")
    assert [failed.id for _, failed in alike.done(FIRST)] == [str(number) for number in range(MOST - 1)]
    assert not hold(alike, 99, "400: no") and not alike.verdict(FIRST)
    assert hold(alike, 99, "400: no", group=SimpleNamespace(position=1)), "another backend has done none"


def test_what_is_about_single_rows_is_not_held():
    alike = Alike()
    for message in (
        "400: At most 4 image(s) may be provided in one prompt",
        "400: This model's maximum context length is 2048 tokens",
        "400: cannot identify image file",
        "no such file",  # not from the service
    ):
        assert not hold(alike, 1, message)
    assert not hold(alike, 1, "400: blocked", kind="refused")


def test_rows_that_are_refused_differently_are_at_fault_in_the_end():
    alike = Alike()
    for number in range(MOST_HELD):
        assert not alike.overflow(FIRST)
        hold(alike, number, f"400: {'x' * number}")
        assert not alike.verdict(FIRST)
    assert alike.overflow(FIRST) and len(alike.close()) == MOST_HELD
