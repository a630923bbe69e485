"""Blocks of a transformer are alike, so what one costs with some shapes the next one costs as well.

The first block of a kind runs with each combination of shapes; the others add what it cost and return tensors of the
same shapes. This makes the whole matrix several times faster. test_replay.py computes every block and compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from diffusers.models.transformers.transformer_flux2 import Flux2KVLayerCache
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from fastgen.opt import parked
from tests.rehearsal.meter import Meter, Work


@dataclass(frozen=True)
class Cost:
    """What a block did."""

    work: Work
    rise_bytes: int
    """The most on the card above what was there before."""
    rise_at: str
    outputs: list[tuple[torch.Size, torch.dtype, torch.device] | Any]
    shape: Any
    """How the outputs are nested."""


@contextmanager
def weights_stay(meter: Meter) -> Iterator[None]:
    """Streamed blocks say where they are, and their weights do not become parts of the ring's memory one by one."""

    def spread(block: nn.Module, flat: torch.Tensor) -> None:
        for tensor in (*block.parameters(), *block.buffers()):
            meter.ignore(tensor)  # the ring is what takes memory
            tensor.fake_device = flat.device

    with patch.object(parked, "_spread", spread):
        yield


def alike(blocks: Iterable[nn.Module], meter: Meter) -> None:
    """From now on these blocks share what they cost."""
    known: dict[tuple, Cost] = {}
    for block in blocks:
        block.forward = _Replayed(block, block.forward, meter, known)


class _Replayed:
    def __init__(self, block: nn.Module, forward: Any, meter: Meter, known: dict[tuple, Cost]):
        weights = [(name, type(one), one.shape, one.dtype) for name, one in block.state_dict().items()]
        self.kind = (type(block), str(weights))
        self.forward, self.meter, self.known = forward, meter, known

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, nested = tree_flatten((args, kwargs))
        if any(isinstance(leaf, Flux2KVLayerCache) and leaf.k_ref is None for leaf in leaves):
            return self.forward(*args, **kwargs)  # the block is to fill it
        # The scales of quantized inputs and the like are made anew, so nothing but shapes matters.
        key = (*self.kind, str(nested), *(str(_described(leaf)) for leaf in leaves))
        if key not in self.known:
            return self._measure(key, args, kwargs)
        cost, meter = self.known[key], self.meter
        meter.add(cost.work, cost.rise_bytes, cost.rise_at)
        made = [
            torch.empty(one[0], dtype=one[1], device=one[2]) if isinstance(one, tuple) else one for one in cost.outputs
        ]
        return tree_unflatten(made, cost.shape)

    def _measure(self, key: tuple, args: Any, kwargs: Any) -> Any:
        meter = self.meter
        before, live, peak, peak_at = meter.work.copy(), meter.live, meter.peak, meter.peak_at
        meter.forget_peaks()
        found = self.forward(*args, **kwargs)
        leaves, nested = tree_flatten(found)
        rise, rise_at = meter.peak - live, meter.peak_at
        self.known[key] = Cost(meter.work - before, rise, rise_at, [_described(leaf) for leaf in leaves], nested)
        if peak > meter.peak:
            meter.peaks[0], meter.peak_at = peak, peak_at
        return found


def _described(leaf: Any) -> Any:
    if isinstance(leaf, Flux2KVLayerCache):
        return tuple(_described(one) for one in leaf.get())
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, torch.Tensor) else leaf
