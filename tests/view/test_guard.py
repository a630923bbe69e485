"""Who may ask, and with which address."""

from __future__ import annotations

import socket

import pytest

from fastgen.view.guard import allows, is_loopback


@pytest.mark.parametrize("header", ["127.0.0.1:8765", "localhost:8765", "localhost", "[::1]:8765", "LOCALHOST:1"])
def test_this_machine_is_allowed(header):
    assert allows(header, "127.0.0.1")


@pytest.mark.parametrize(
    "header", ["evil.example:8765", "127.0.0.1.evil.example", "10.0.0.7:8765", "", "localhost.evil:8765"]
)
def test_a_name_that_somebody_made_point_here_is_not(header):
    assert not allows(header, "127.0.0.1")


def test_with_another_host_addresses_and_own_names_are_allowed():
    assert allows("10.0.0.7:8765", "0.0.0.0") and allows(f"{socket.gethostname()}:8765", "0.0.0.0")
    assert allows("gpu7.lab:8765", "gpu7.lab") and not allows("evil.example:8765", "0.0.0.0")


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.3.2.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.7", "gpu7.lab")))
