"""A call whose answer comes later, maybe to another process: the row is left where it is, and done over from its first
call once the answer is there. Direct calls know nothing of this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Protocol


class NotYet(BaseException):
    """The answer to a call is not there yet. Like a cancellation it passes through code that handles errors, such as
    the vendors' SDKs."""


class Row(Protocol):
    branch: tuple[int, ...]
    """Where the row is among calls that do not depend on each other."""
    is_missing_answers: bool


class _Here(threading.local):
    row: Row | None = None


here = _Here()
"""The row that this thread is doing, if its calls are deferred."""


def each(works: Iterable[Callable[[], None]]) -> None:
    """Do what does not depend on each other: one after the other, or, if calls are deferred, all up to their calls.

    Raises:
        NotYet: an answer is missing, after the calls of all of them are known.
        Exception: what the first of them raised that did not succeed. Deferred calls of the others were made all the
            same, and are counted.
    """
    row = here.row
    if row is None:
        for work in works:
            work()
        return
    missing: NotYet | None = None
    first: Exception | None = None
    branch = row.branch
    for number, work in enumerate(works):
        row.branch = (*branch, number)
        try:
            work()
        except NotYet as yet:
            missing, row.is_missing_answers = yet, True
        except Exception as error:
            first = first or error
        finally:
            row.branch = branch
    if missing is not None:
        raise missing
    if first is not None:
        raise first
