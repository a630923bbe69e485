"""`fastgen view` as a command: what it says, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from fastgen.cli.main import app
from tests.view.folders import everything, scenes


def view(*arguments):
    return CliRunner().invoke(app, ["view", *map(str, arguments)])


def test_the_page_is_served_until_ctrl_c(tmp_path):
    run = scenes(tmp_path / "run")
    before = everything(run)
    command = [sys.executable, "-m", "fastgen", "view", str(run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split()[0]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}runs", timeout=60) as answer:
            assert b'"name":"run"' in answer.read()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, said) == (0, "") and everything(run) == before


def test_a_folder_that_is_no_run_is_named(tmp_path):
    result = view(tmp_path)
    assert result.exit_code == 2 and "run.json cannot be read" in result.stderr


def test_an_export_says_where_it_is(tmp_path):
    result = view(scenes(tmp_path / "run"), "--export", tmp_path / "page")
    assert result.exit_code == 0 and result.stdout == f"{tmp_path}/page/index.html: 8 rows\n"
    result = view(tmp_path / "run", "--export", tmp_path / "run/page")
    assert result.exit_code == 2 and "is in a run folder" in result.stderr


def test_it_says_that_other_machines_can_look(tmp_path, monkeypatch):
    from fastgen.view.server import Server

    monkeypatch.setattr(Server, "run", lambda self: self._socket.close())
    monkeypatch.setattr("os.nice", lambda by: 0)
    for host, warns in (("127.0.0.1", False), ("0.0.0.0", True)):
        result = view(scenes(tmp_path / "run"), "--port", 0, "--host", host)
        assert result.exit_code == 0 and ("other machines can reach this page" in result.stderr) is warns


@pytest.mark.parametrize("arguments", [["--port", "70000"], ["--export", ""]])
def test_flags_are_checked(tmp_path, arguments):
    assert view(scenes(tmp_path / "run"), *arguments).exit_code == 2
