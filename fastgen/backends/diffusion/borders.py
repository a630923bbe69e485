"""Tensors on their way from one GPU of a replica to another. Does not know what they are.

PyTorch's own copy between GPUs makes each of them wait until the other has done everything that was enqueued before, so
no stage could work ahead. Here copies have streams of their own: a copy begins when its tensor is there, and only what
is enqueued on the target afterwards waits for it. The host waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


def cross(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on that device, for what is enqueued there from now on. On a CPU, and where it is there already,
    nothing is copied."""
    source = tensor.device
    if source == device:
        return tensor
    if source.type != "cuda" or device.type != "cuda":
        return tensor.to(device)
    here, there = torch.cuda.current_stream(source), torch.cuda.current_stream(device)
    leaving, arriving = _streams(source, device, here)
    leaving.wait_stream(here)
    with torch.cuda.stream(leaving), torch.cuda.stream(arriving):
        copy = tensor.to(device, non_blocking=True)
    there.wait_stream(arriving)
    tensor.record_stream(leaving)  # its memory is not given away before the copy is done
    copy.record_stream(there)
    return copy


@cache
def _streams(
    source: torch.device, target: torch.device, here: torch.cuda.Stream
) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """Each border has its own, so that what arrives at a device does not wait for what leaves it; and each stream that
    copies come from, so that groups which are apart do not wait for each other."""
    return torch.cuda.Stream(source), torch.cuda.Stream(target)


@contextmanager
def working_on(device: torch.device) -> Iterator[None]:
    """Inside the block this GPU is the current one: kernels that are not PyTorch's own are started there."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield
