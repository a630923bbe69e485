"""Seconds per stage of one batch. On a GPU, work is only enqueued, so its stages are measured by events in the stream
and read when the batch has ended. Does not know what the stages are.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Args: device: where the batch is computed."""

    def __init__(self, device: torch.device):
        self._on_gpu = device.type == "cuda"
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._spans: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def host(self, name: str) -> Iterator[None]:
        """A stage that this thread does itself."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] += time.monotonic() - started

    @contextmanager
    def device(self, name: str) -> Iterator[None]:
        """A stage that the device does: on a GPU, from when it reaches this work until it has done it."""
        if not self._on_gpu:
            with self.host(name):
                yield
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        try:
            yield
        finally:
            end.record()
            self._spans.append((name, begin, end))

    def read(self) -> dict[str, float]:
        """Seconds by stage. Waits until the device has done all of them."""
        spans, self._spans = self._spans, []
        for _, _, end in spans[-1:]:  # the last one recorded is the last one reached
            end.synchronize()
        for name, begin, end in spans:
            self._seconds[name] += begin.elapsed_time(end) / 1000
        return dict(self._seconds)
