"""What to do about rows that failed, by why they did."""

from __future__ import annotations

from collections.abc import Mapping

from fastgen.scheduler.failure_policy import AGAIN, CLOSING

_FIX = "fix them and run the same command, or run this file with another -o"
_SERVICE = "once the key, the account and the model are right, the same command tries them again"
_LATER = "the same command tries them again"
_RETRY = "--retry-failed tries them again"
_OWN = {
    "refused": "with --fallback and --fallback-on-refusal another backend tries them",
    "truncated": "run this file with a higher --max-tokens and another -o",
    "unsupported": "change them, or use another backend; --fallback names one",
    "nan": "run this file with another --dtype and another -o",
}


def about(failed: Mapping[str, int]) -> str:
    """Args: failed: kind of failure -> how many rows."""
    by_advice: dict[str, int] = {}
    for kind, rows in failed.items():
        advice = _of(kind)
        by_advice[advice] = by_advice.get(advice, 0) + rows
    if len(by_advice) < 2:
        return "".join(by_advice) or _RETRY
    return "; ".join(f"{rows}: {advice}" for advice, rows in by_advice.items())


def _of(kind: str) -> str:
    if kind == "input":
        return _FIX
    if kind in CLOSING:
        return _SERVICE
    return _LATER if kind in AGAIN else _OWN.get(kind, _RETRY)
