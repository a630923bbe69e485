"""An error that nobody foresaw is one line and a file."""

from __future__ import annotations

import pytest

from fastgen.cli import main, unforeseen


def test_an_unforeseen_error_is_one_line_and_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        raise KeyError("surprise\nin two lines")
    except KeyError as error:
        assert unforeseen.say(error) == 1
    told = capsys.readouterr().err
    [kept] = tmp_path.iterdir()
    assert told.count("\n") == 1 and str(kept) in told and "KeyError" in told and "Traceback" not in told
    assert "Traceback" in kept.read_text() and "surprise" in kept.read_text()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert unforeseen.say(ValueError()) == 1 and "report it" not in capsys.readouterr().err


def test_the_command_ends_by_it(monkeypatch, capsys):
    from fastgen import __main__

    def broken(**_):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(main, "app", broken)
    monkeypatch.setattr("fastgen.cli.unforeseen._keep", lambda error: "")
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 1 and "unexpected ZeroDivisionError: oops" in capsys.readouterr().err
