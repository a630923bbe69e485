"""Which of a model's blocks lie on which device of a replica: stages, in the order in which the blocks run. Pure.

A pipeline is as fast as its slowest stage. All blocks of a transformer take about the same time: FLUX's two kinds do
the same work per token, with different amounts of weights. So the stages get equal numbers of blocks, as far as memory
allows.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Cut(msgspec.Struct, frozen=True):
    """Where everything lies."""

    stages: tuple[tuple[int, int], ...]
    """(first block, first block of the next stage) of each stage."""
    text: int
    """The stage that also has the text encoders."""

    @property
    def slowest(self) -> int:
        """Blocks of the largest stage."""
        return max(stop - start for start, stop in self.stages)


def cut(blocks: Sequence[float], rooms: Sequence[float], first: float, last: float, text: float) -> Cut | None:
    """The fastest way to divide the blocks that fits; among equal ones that with the most room left on the fullest
    device. None if nothing fits.

    Args:
        blocks: the size of each block, in any unit.
        rooms: what each device has free for weights, in the same unit; one stage each.
        first: the size of what the first stage has besides: the VAE, and what comes before the blocks.
        last: of what the last stage has besides: what comes after the blocks.
        text: of the text encoders.
    """
    if len(blocks) < len(rooms):
        return None
    found: list[tuple[int, float, Cut]] = []
    for place in range(len(rooms)):
        free = list(rooms)
        free[0] -= first
        free[-1] -= last
        free[place] -= text
        if (best := _divide(blocks, free)) is not None:
            stages, least = best
            one = Cut(stages, place)
            found.append((one.slowest, -least, one))
    return min(found, key=lambda one: one[:2])[2] if found else None


def _divide(blocks: Sequence[float], free: Sequence[float]) -> tuple[tuple[tuple[int, int], ...], float] | None:
    """Contiguous stages of at least one block: the fewest blocks in the largest stage, then the most room left.
    Returns the stages and the least room that is left on a device."""
    sums = [0.0]
    for size in blocks:
        sums.append(sums[-1] + size)
    best: dict[int, tuple[int, float, tuple[tuple[int, int], ...]]] = {0: (0, float("inf"), ())}
    for room in free:
        after: dict[int, tuple[int, float, tuple[tuple[int, int], ...]]] = {}
        for start, (slowest, least, stages) in best.items():
            for stop in range(start + 1, len(blocks) + 1):
                left = room - (sums[stop] - sums[start])
                if left < 0:
                    break
                one = (max(slowest, stop - start), min(least, left), (*stages, (start, stop)))
                known = after.get(stop)
                if known is None or (one[0], -one[1]) < (known[0], -known[1]):
                    after[stop] = one
        best = after
    whole = best.get(len(blocks))
    return (whole[2], whole[1]) if whole is not None else None
