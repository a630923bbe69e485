"""Tensors on their way from one GPU of a replica to the next. Does not know what they are.

PyTorch's own copy between GPUs makes each of them wait until the other has done everything that was enqueued before, so
a stage could not work ahead. Here copies have streams of their own: a copy begins when its tensor is there, and only
what is enqueued on the target afterwards waits for it. The host waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Borders:
    """Copies between the devices of a replica. On a CPU, and inside one device, nothing is copied."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def cross(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """The tensor on that device, for what is enqueued there from now on."""
        source = tensor.device
        if source == device or device.type != "cuda":
            return tensor
        leaving, arriving = self._stream(source), self._stream(device)
        here, there = torch.cuda.current_stream(source), torch.cuda.current_stream(device)
        leaving.wait_stream(here)
        with torch.cuda.stream(leaving), torch.cuda.stream(arriving):
            copy = tensor.to(device, non_blocking=True)
        there.wait_stream(arriving)
        tensor.record_stream(leaving)  # its memory is not given away before the copy is done
        copy.record_stream(there)
        return copy

    def _stream(self, device: torch.device) -> torch.cuda.Stream:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return self._streams[device]


@contextmanager
def working_on(device: torch.device) -> Iterator[None]:
    """Inside the block this GPU is the current one: kernels that are not PyTorch's own are started there."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield
