"""Tensors between main memory and the device, without making the host wait. Does not know what they are.

A copy from or to pageable memory stops the host until the GPU has done everything before it. Through pinned memory it
is only enqueued. On a CPU nothing is copied.
"""

from __future__ import annotations

import torch


def upload(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A tensor on the device. From main memory, the copy is enqueued on the current stream; the host goes on."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device, dtype or tensor.dtype)
    # torch's allocator of pinned memory gives this buffer to no one else before the copy is done.
    return tensor.to(dtype or tensor.dtype).pin_memory().to(device, non_blocking=True)


class Download:
    """A tensor on its way from the device to main memory. The copy is enqueued when this is made."""

    def __init__(self, tensor: torch.Tensor):
        self._event: torch.cuda.Event | None = None
        self._host = tensor
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def wait(self) -> torch.Tensor:
        """The tensor in main memory, as soon as it is there. From any thread."""
        if self._event is not None:
            self._event.synchronize()
        return self._host
