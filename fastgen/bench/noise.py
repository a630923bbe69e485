"""Whether a bench's figures can be trusted: what its own spread and the load of the machine say. Does not measure."""

from __future__ import annotations

import os

MOST_SPREAD = 1.25
"""Highest ratio of a round divided by the lowest. On a quiet machine it is below 1.1."""
BUSY = 0.25
"""Of the processors: so much work of other programs disturbs what is measured."""


def load() -> float:
    """Processors that are busy, on average over the last minute."""
    return os.getloadavg()[0]


def others(load_before: float, cores: int) -> str:
    """That other programs were at work when the bench began; "" if they were not."""
    if load_before <= BUSY * cores:
        return ""
    return (
        f"other programs kept {load_before:.1f} of {cores} processors busy when the bench began; end them and measure "
        "again"
    )


def is_noise(arm: dict) -> bool:
    """Whether the rounds of an arm differ so much that its ratio says little."""
    return bool(arm.get("ratio_least")) and arm["ratio_most"] / arm["ratio_least"] > MOST_SPREAD


def warnings(found: dict) -> list[str]:
    """What to know before anyone believes the figures; empty if there is nothing.

    Args:
        found: the content of bench.json.
    """
    facts, (baseline, *arms) = found["about"], found["arms"]
    said = [busy] if (busy := others(facts.get("load_before", 0.0), facts.get("cores", 0))) else []
    rates = baseline.get("images_per_second_by_round") or [1.0]
    least, most = min(rates), max(rates)
    if least and most / least > MOST_SPREAD:
        said.append(f"{baseline['name']} itself made between {least:.3g} and {most:.3g} per second from round to round")
    if noisy := [arm["name"] for arm in arms if is_noise(arm)]:
        said.append(
            f"the rounds of {', '.join(noisy)} differ too much to say how fast they are (marked with ?); "
            "measure again on a quiet machine, with more --rounds or --rows"
        )
    return said
