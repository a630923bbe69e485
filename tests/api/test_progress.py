"""What Python callers see of a run: on a terminal, in a notebook, and in a log."""

from __future__ import annotations

import asyncio
import io
import itertools
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest

import fastgen
from fastgen.scheduler import run as running
from fastgen.view import live

ROWS = [{"prompt": "a"}, {"prompt": "refuse"}]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def often(monkeypatch):
    """Events "progress" come at once."""
    monkeypatch.setattr(running, "TICK_S", 0.02)


def test_a_log_has_lines_and_one_at_the_end(settings, capsys):
    assert len(list(fastgen.generate(settings("t2i"), ROWS, progress=True))) == 2
    told = capsys.readouterr()
    assert told.out == "" and re.fullmatch(r"t2i: 2 of 2 rows \(100%\)(, [\d.]+ images/s)?, 1 failed\n", told.err), (
        told.err
    )


def test_a_log_has_a_line_now_and_then(settings, capsys, monkeypatch, often):
    monkeypatch.setattr(live, "LINES_EVERY_S", 0.0)
    assert len(list(fastgen.generate(settings("t2i"), ROWS, progress=True))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1 and re.match(r"t2i: [01] of 2 rows \(\d+%\), (loading|working)", lines[0]), lines
    assert all(a != b for a, b in itertools.pairwise(lines[:-1]))


def test_a_terminal_has_the_display_of_the_command_line(settings, monkeypatch, capsys, often):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    shown, told = [], []
    display = live.display

    def watched():
        found = display()
        monkeypatch.setattr(found, "take", lambda facts, take=found.take: (shown.append(facts), take(facts)))
        return found

    monkeypatch.setattr(live, "display", watched)

    def emit(event, **facts):
        if event == "progress":
            told.append(facts)

    for result in fastgen.generate(settings("t2i"), ROWS, emit, progress=True):
        print("mine", bool(result.error))
    assert shown == told and any(facts["workers"] and facts["workers"][0]["lane"] == "cpu" for facts in told)
    drawn = terminal.getvalue()
    assert (
        "2 of 2 rows  100%" in drawn
        and "worker" in drawn
        and drawn.endswith(", 1 failed\n")
        and "t2i: 2 of 2 rows (100%)" in drawn
    )
    # What the caller prints into a pipe stays there.
    assert sorted(capsys.readouterr().out.splitlines()) == ["mine False", "mine True"] and "mine" not in drawn


def test_a_notebook_has_it_as_an_output_of_the_cell(settings, monkeypatch, capsys, often):
    shown = []
    handle = SimpleNamespace(update=shown.append)
    display = ModuleType("IPython.display")
    display.HTML, display.display = str, lambda html, display_id: (shown.append(html), handle)[1]
    ipython = ModuleType("IPython")
    ipython.get_ipython = type("ZMQInteractiveShell", (), {})
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert len(list(fastgen.generate(settings("t2i"), ROWS, progress=True))) == 2
    text = [re.sub(r"<[^>]*>", "", html) for html in shown]
    assert "loading" in text[0] and any("worker" in one and "cpu" in one for one in text)
    assert "2 of 2 rows" in text[-1] and "1 failed" in text[-1] and "worker" not in text[-1]
    assert capsys.readouterr().err == ""


def test_a_run_that_has_nothing_to_do_says_so(settings, capsys):
    for _ in range(2):
        list(fastgen.generate(settings("t2i"), [{"prompt": "a"}], progress=True))
    assert capsys.readouterr().err.splitlines()[-1] == "t2i: 1 of 1 rows (100%)"


def test_asyncio_has_it_too(settings, capsys):
    async def main():
        return [result async for result in fastgen.generate_async(settings("t2i"), [{"prompt": "a"}], progress=True)]

    assert len(asyncio.run(main())) == 1
    assert "t2i: 1 of 1 rows (100%)" in capsys.readouterr().err


def test_who_leaves_the_loop_leaves_no_display(settings, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    results = fastgen.generate(settings("t2i"), ROWS, progress=True)
    next(results)
    results.close()
    assert sys.stderr is terminal and re.search(r"t2i: [12] of 2 rows \(\d+%\)[^\n]*\n$", terminal.getvalue())


def test_without_it_nothing_is_said(settings, capsys):
    with fastgen.Session() as session:
        assert len(list(session.generate(settings("t2i"), [{"prompt": "a"}]))) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")
