"""The bar of Python callers."""

from __future__ import annotations

import fastgen


def test_a_bar_counts_rows_and_failures(settings, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    rows = [{"prompt": "a"}, {"prompt": "refuse"}]
    assert len(list(fastgen.generate(settings("t2i"), rows, progress=True))) == 2
    told = capsys.readouterr()
    assert told.out == "" and "t2i" in told.err and "2/2" in told.err and "1 failed" in told.err


def test_without_it_nothing_is_said(settings, capsys):
    with fastgen.Session() as session:
        assert len(list(session.generate(settings("t2i"), [{"prompt": "a"}]))) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")
