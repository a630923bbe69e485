"""What is said about failed rows fits why they failed."""

from __future__ import annotations

import pytest

from fastgen.cli import advice


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        ({"input": 2}, "fix them and run the same command, or run this file with another -o"),
        ({"unauthorized": 2}, "once the key, the account and the model are right, the same command tries them again"),
        ({"unavailable": 1, "rate_limited": 1}, "the same command tries them again"),
        ({"internal": 1, "transient": 1}, "--retry-failed tries them again"),
        ({"refused": 3, "oom": 1}, "3: with --fallback and --fallback-on-refusal another backend tries them; 1: --re"),
        ({}, "--retry-failed tries them again"),
    ],
    ids=str,
)
def test_advice_about_failed_rows_fits_the_cause(failed, words):
    assert advice.about(failed).startswith(words)
