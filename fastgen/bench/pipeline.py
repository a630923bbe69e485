"""A replica of several GPUs on paper: when each stage works on which group, and how much of the time each GPU is used.
Nothing here is measured. Imports no torch.

The engine enqueues one group after the other, stage after stage, and every GPU does its own work in that order. So
when something begins follows from the order, the time that it takes, and the borders that it crosses.

python -m fastgen.bench.pipeline --stages 2    prints the use of each GPU
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence

import msgspec

STEPS, SIDE, TEXT = 28, 1024, 512
WIDTH, BLOCKS, PATCH = 3072, 57, 16
"""FLUX.1's transformer, and the pixels of a token's side."""
TFLOPS, MEMORY_GB_S, LINK_GB_S = 989.0, 3350.0, 26.0
"""An H100's data sheet in bfloat16, and PCIe 4.0."""
REACHED, REACHED_MEMORY, REACHED_LINK = 0.7, 0.8, 0.8
"""Shares of these figures that good code reaches."""


class Piece(msgspec.Struct, frozen=True):
    """What a stage does for a group at a step, in the order in which it is enqueued."""

    group: int
    step: int
    stage: int


class Model(msgspec.Struct, frozen=True):
    """Times of a pipeline, in seconds."""

    stage_s: tuple[float, ...]
    """Each stage, for one group and step."""
    border_s: float = 0.0
    """From a stage to the next: the tokens."""
    back_s: float = 0.0
    """From the last stage to the first: the velocity."""


class Use(msgspec.Struct, frozen=True):
    """What comes out."""

    seconds: float
    busy: tuple[float, ...]
    """Of each stage, the share of all the time."""
    filled: tuple[float, ...]
    """The same from when a stage has begun until it has done its last piece."""
    waits: int
    """Pieces that began later than the stage was free, after its first one."""


def order(stages: int, groups: int, steps: int) -> Iterator[Piece]:
    """The order in which the engine enqueues: the groups in turn, a whole step of each."""
    for step in range(steps):
        for group in range(groups):
            for stage in range(stages):
                yield Piece(group, step, stage)


def simulate(pieces: Iterable[Piece], model: Model) -> Use:
    """When everything happens: a piece begins when its stage has done what was enqueued before, and what it works on
    has arrived."""
    last = len(model.stage_s) - 1
    free, busy = [0.0] * (last + 1), [0.0] * (last + 1)
    first: dict[int, float] = {}
    arrives: dict[tuple[int, int], float] = {}
    waits = 0
    for piece in pieces:
        ready = arrives.get((piece.group, piece.stage), 0.0)
        begins = max(free[piece.stage], ready)
        if piece.stage in first and begins > free[piece.stage] + 1e-9:
            waits += 1
        first.setdefault(piece.stage, begins)
        ends = begins + model.stage_s[piece.stage]
        free[piece.stage] = ends
        busy[piece.stage] += model.stage_s[piece.stage]
        if piece.stage == last:
            arrives[piece.group, 0] = ends + (model.back_s if last else 0.0)
        else:
            arrives[piece.group, piece.stage + 1] = ends + model.border_s
    seconds = max(free)
    spans = [end - first.get(stage, 0.0) for stage, end in enumerate(free)]
    return Use(
        seconds,
        tuple(one / seconds for one in busy),
        tuple(one / span if span else 0.0 for one, span in zip(busy, spans, strict=True)),
        waits,
    )


def flux(
    blocks: Sequence[int],
    batch: int = 1,
    side: int = SIDE,
    reference_side: int = 0,
    link_gb_s: float = LINK_GB_S,
    tflops: float = TFLOPS,
    memory_gb_s: float = MEMORY_GB_S,
) -> Model:
    """FLUX.1 in bfloat16 by its operations and bytes.

    Args:
        blocks: how many each stage has.
        batch: images in a group.
        side, reference_side: of the image and of the one that it is made from, in pixels; 0 for none.
        link_gb_s: between two GPUs, in 10^9 bytes per second.
    """
    tokens = TEXT + (side // PATCH) ** 2 + (reference_side // PATCH) ** 2
    flops = batch * (2 * tokens * 12 * WIDTH**2 + 4 * tokens**2 * WIDTH)
    weights = 2 * 12 * WIDTH**2
    block_s = max(flops / (REACHED * tflops * 1e12), weights / (REACHED_MEMORY * memory_gb_s * 1e9))
    image = batch * (side // PATCH) ** 2
    link = REACHED_LINK * link_gb_s * 1e9
    return Model(
        tuple(count * block_s for count in blocks),
        border_s=border_bytes(batch, side, reference_side) / link,
        back_s=image * 64 * 2 / link,
    )


def border_bytes(batch: int = 1, side: int = SIDE, reference_side: int = 0, width: int = WIDTH) -> int:
    """What crosses a border at a step: all tokens, and the modulation's input of each image, in bfloat16."""
    tokens = TEXT + (side // PATCH) ** 2 + (reference_side // PATCH) ** 2
    return 2 * batch * width * (tokens + 1)


def table(stages: int, groups: int, steps: int, model: Model) -> str:
    """What is printed."""
    use = simulate(order(stages, groups, steps), model)
    each = ", ".join(f"GPU {number} {share:.1%}" for number, share in enumerate(use.busy))
    return (
        f"{stages} stages, {groups} groups, {steps} steps: {each}; {use.waits} waits; "
        f"{groups / use.seconds:.3f} groups per second (simulated, not measured)"
    )


def of_replica(size: int, steps: int = STEPS) -> str:
    """What to expect of a replica of so many GPUs with FLUX.1 at 1024x1024, one image in a group."""
    return table(size, size + 1, steps, flux(equal(size)))


def equal(stages: int) -> list[int]:
    """How many blocks each stage has if they have equal numbers."""
    return [(at + 1) * BLOCKS // stages - at * BLOCKS // stages for at in range(stages)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The expected use of each GPU of a replica, simulated.")
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--groups", type=int, default=0, help="under way at the same time [default: stages + 1]")
    parser.add_argument("--blocks", default="", help="of each stage, such as 28,29 [default: equal]")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=1, help="images in a group")
    parser.add_argument("--side", type=int, default=SIDE, help="of an image, in pixels")
    parser.add_argument("--link", type=float, default=LINK_GB_S, help="GB/s between two GPUs [default: PCIe 4.0]")
    given = parser.parse_args(arguments)
    blocks = [int(word) for word in given.blocks.split(",")] if given.blocks else equal(given.stages)
    model = flux(blocks, given.batch, given.side, link_gb_s=given.link)
    print(table(len(blocks), given.groups or len(blocks) + 1, given.steps, model))


if __name__ == "__main__":
    main()
