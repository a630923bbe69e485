"""The end of a run, worker by worker: how busy each one was, and what was lost to what. Knows the summary only."""

from __future__ import annotations

from typing import Any

MOST_LINES = 16
"""With more workers only the sum and those that lost something are shown."""


def lines(workers: dict[str, dict[str, Any]]) -> list[str]:
    """Lines for a person; none for a single worker that lost nothing.

    Args:
        workers: `workers` of run.json.
    """
    if len(workers) < 2 and not any(map(_lost, workers.values())):
        return []
    if len(workers) <= MOST_LINES:
        return [_line(name, about) for name, about in workers.items()]
    shares = [about["busy"] for about in workers.values()]
    least = min(workers, key=lambda name: workers[name]["busy"])
    first = f"{len(workers)} workers were busy for {sum(shares) / len(shares):.0%} of the time after loading"
    first += f", {least} least ({workers[least]['busy']:.0%})"
    hurt = [_line(name, about) for name, about in workers.items() if _lost(about)]
    more = [f"and {len(hurt) - MOST_LINES} more workers that lost something; run.json has all"]
    return [first, *hurt[:MOST_LINES], *(more if len(hurt) > MOST_LINES else [])]


def _lost(about: dict[str, Any]) -> bool:
    return bool(about["restarts"] or about.get("lost_rows"))


def _line(name: str, about: dict[str, Any]) -> str:
    rows = about["rows"]
    text = f"{name}: {rows} row{'s' * (rows != 1)}, busy for {about['busy']:.0%} of the time after loading"
    if about["restarts"]:
        text += f"; started again {about['restarts']} time{'s' * (about['restarts'] > 1)}"
    for reason, rows in about.get("lost_rows", {}).items():
        text += f"; {rows} row{'s' * (rows != 1)} came back and ran again ({reason})"
    return text
