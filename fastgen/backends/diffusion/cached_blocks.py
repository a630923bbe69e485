"""All blocks for the samples whose first block requires it, and for the others what earlier steps added. Does not know
the architecture, or how a sample decides (`opt/stepcache`)."""

from __future__ import annotations

from typing import Any

import torch

from fastgen.backends.diffusion.family import Forward
from fastgen.backends.diffusion.transfer import upload
from fastgen.opt.stepcache import CacheState, distances


def through_cache(forward: Forward, activations: Any, states: list[CacheState], levels: list[float]) -> torch.Tensor:
    """The image's tokens (B, tokens, width) after all blocks. Samples that need only the first one leave the batch for
    the rest of the step.

    Args:
        activations: those before the first block.
        states: what each sample remembers.
        levels: the noise level of each sample.
    """
    before = activations.image
    activations = forward.blocks(activations, 0, 1)
    after = activations.image
    open_ones = [i for i, state in enumerate(states) if not state.must_compute]
    skip = set()
    if open_ones:
        own = torch.stack([states[i].sums(after[i] - before[i], levels[i]) for i in open_ones])
        far = distances(forward.total(own))
        # One wait for the device per step, independent of the number of samples.
        for i, distance in zip(open_ones, far.tolist(), strict=True):
            if distance <= states[i].config.threshold:
                skip.add(i)
    compute = [i for i in range(len(states)) if i not in skip]
    rows = slice(None) if not skip else upload(torch.tensor(compute), after.device)
    ended: dict[int, torch.Tensor] = {}
    if compute:
        full = forward.back(forward.blocks(activations.rows(rows), 1).image)
        for at, i in enumerate(compute):
            ended[i] = full[at]
            states[i].computed(after[i] - before[i], ended[i] - after[i], levels[i])
    for i in skip:
        ended[i] = after[i] + states[i].skipped(levels[i])
    return torch.stack([ended[i] for i in range(len(states))])
