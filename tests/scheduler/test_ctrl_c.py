"""Who gets Ctrl-C, and when: the run while it works, the program while it has the word."""

from __future__ import annotations

import signal
import threading

import pytest

from fastgen.errors import DiskError
from fastgen.scheduler.ctrl_c import _suspended, results_of

PRESSED = signal.default_int_handler


@pytest.fixture(autouse=True)
def pythons_own():
    """Commands that earlier tests ran in this process may have left a handler of theirs."""
    before = signal.signal(signal.SIGINT, PRESSED)
    yield
    signal.signal(signal.SIGINT, before)


class Work:
    """A run of so many results; `press` is the number of the one during which Ctrl-C is pressed, once or twice."""

    def __init__(self, results: int = 4, press: int = -1, times: int = 1, asks_services: bool = True):
        self.state, self.asks_services = "running", asks_services
        self.made: list[int] = []
        self.closed = False
        self._results, self._press, self._times = results, press, times

    def interrupt(self) -> None:
        self.state = "interrupting"

    def results(self):
        try:
            for number in range(1, self._results + 1):
                for _ in range(self._times if number == self._press else 0):
                    signal.raise_signal(signal.SIGINT)
                self.made.append(number)
                yield number
                if self.state == "interrupting" and len(self.made) > 2:  # the last one was in progress
                    self.state = "interrupted"
                    return
            self.state = "finished"
        finally:
            self.closed = True


def test_undisturbed_it_is_the_run(capsys):
    work = Work()
    for number in results_of(work, quiet=False):
        assert signal.getsignal(signal.SIGINT) is PRESSED and work in _suspended
        assert number == work.made[-1]
    assert work.made == [1, 2, 3, 4] and work.closed and not _suspended and not capsys.readouterr().err


@pytest.mark.parametrize("quiet", [False, True])
def test_the_first_one_lets_the_run_finish_what_is_in_progress(capsys, quiet):
    work, got = Work(press=2), []
    with pytest.raises(KeyboardInterrupt):
        got.extend(results_of(work, quiet))
    assert work.made == [1, 2, 3] and work.state == "interrupted" and work.closed
    assert signal.getsignal(signal.SIGINT) is PRESSED
    assert ("press Ctrl-C again" in capsys.readouterr().err) != quiet


def test_what_comes_after_it_is_still_given():
    work, got = Work(press=2), []
    with pytest.raises(KeyboardInterrupt):
        for number in results_of(work, quiet=True):
            got.append(number)
    assert got == [1, 2, 3]


def test_the_second_one_is_immediate():
    work = Work(press=2, times=2)
    with pytest.raises(KeyboardInterrupt):
        list(results_of(work, quiet=True))
    assert work.made == [1] and work.closed


@pytest.mark.parametrize(("asks_services", "made"), [(True, [1, 2, 3]), (False, [1])])
def test_in_the_program_it_is_raised_at_once_and_paid_answers_are_awaited(asks_services, made):
    work = Work(asks_services=asks_services)
    with pytest.raises(KeyboardInterrupt):
        for _ in results_of(work, quiet=True):
            signal.raise_signal(signal.SIGINT)
    assert work.made == made and work.closed and not _suspended


def test_so_they_are_if_the_program_leaves_its_loop():
    work = Work()
    for _ in results_of(work, quiet=True):
        break
    assert work.made == [1, 2, 3] and work.state == "interrupted" and work.closed


def test_a_run_that_ends_with_an_error_is_not_awaited():
    class Failing(Work):
        def results(self):
            yield 1
            self.state = "stopped"
            raise DiskError("it is full")

    work = Failing()
    with pytest.raises(DiskError):
        list(results_of(work, quiet=True))
    assert work.state == "stopped" and not _suspended


def test_a_handler_of_the_programs_own_stays():
    called = []

    def own(signum, frame):
        called.append(signum)

    before = signal.signal(signal.SIGINT, own)
    try:
        work = Work(press=2)
        assert list(results_of(work, quiet=True)) == [1, 2, 3, 4]
        assert called == [signal.SIGINT] and signal.getsignal(signal.SIGINT) is own and work.state == "finished"
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_signals_are_left_alone():
    work, got = Work(), []
    thread = threading.Thread(target=lambda: got.extend(results_of(work, quiet=True)))
    thread.start()
    thread.join()
    assert got == [1, 2, 3, 4] and work.closed
