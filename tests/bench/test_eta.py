"""How long a bench still takes."""

from __future__ import annotations

from fastgen.bench.eta import Eta


def test_what_is_left_follows_from_what_was_seen():
    eta = Eta(starts=3, rounds=8)
    assert str(eta) == "" and eta.left_s == 0
    eta.started(10.0)
    eta.played(4.0)
    eta.played(6.0)
    assert eta.left_s == 2 * 10 + 6 * 5 and str(eta) == "about 50 s left"
    eta.started(100.0)  # an arm that does not run after all
    eta.skip(4)
    assert eta.left_s == 55 + 2 * 5
    for _ in range(2):
        eta.played(5.0)
    eta.started(10.0)
    assert str(eta) == ""
    assert str(Eta(1, 100)) == ""
    long = Eta(0, 100)
    long.played(60.0)
    assert str(long) == "about 99 min left"
