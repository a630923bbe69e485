"""A port that is chosen for a server is held until it listens, and who listens there is known."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from fastgen.backends.remote.ports import Port, is_served_by

LISTEN = """
import socket, sys
one = socket.socket()
if "reuse" in sys.argv:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if "share" in sys.argv:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
try:
    one.bind(("127.0.0.1", int(sys.argv[1])))
    one.listen()
    print("listens", flush=True)
    sys.stdin.read()
except OSError as error:
    print(error.strerror, flush=True)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="who has a socket is read from /proc")


@pytest.fixture
def listener():
    """listener(port, *words) -> the first line of a program in a session of its own."""
    started = []

    def start(port: int, *words: str) -> str:
        command = [sys.executable, "-c", LISTEN, str(port), *words]
        started.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        )
        return started[-1].stdout.readline().strip()

    yield start
    for process in started:
        process.communicate()


@linux
@pytest.mark.parametrize("words", [("reuse",), ("reuse", "share")])
def test_the_server_it_is_for_gets_the_port(listener, words):
    """vLLM sets SO_REUSEADDR, and SO_REUSEPORT too if it has several API servers."""
    with Port() as port:
        assert listener(port.number, *words) == "listens"


@linux
def test_nobody_else_gets_it_by_chance(listener):
    with Port() as port:
        assert listener(port.number) == "Address already in use"
    with Port(hold=False) as port:
        assert listener(port.number) == "listens"


@linux
def test_who_listens(listener):
    with Port() as port:
        assert is_served_by(os.getpid(), port.number) is None, "nobody yet"
        assert listener(port.number, "reuse") == "listens"
        assert is_served_by(os.getpid(), port.number) is True
        assert is_served_by(os.getppid(), port.number) is False
    with socket.create_server(("", 0)) as own:
        assert is_served_by(os.getpid(), own.getsockname()[1]) is False, "this process is not its child"


@linux
def test_a_port_that_is_shared_with_a_stranger_is_not_ours(listener):
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        number = stranger.getsockname()[1]
        assert listener(number, "reuse", "share") == "listens"
        assert is_served_by(os.getpid(), number) is False
    assert is_served_by(os.getpid(), number) is True
