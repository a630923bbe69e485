"""Seconds per stage of one batch. On a GPU, work is only enqueued, so its stages are measured by events in the stream
and read when the batch has ended. Does not know what the stages are.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Span:
    """A stretch of the device's time, as a context manager around what is enqueued or done."""

    def __init__(self, device: torch.device):
        on_gpu = device.type == "cuda"
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if on_gpu else []
        self._times: list[float] = []
        self._is_over = False

    def __enter__(self) -> Span:
        self._mark(0)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_over:
            self.end()

    def end(self) -> None:
        """Here, in the stream that is the current one, and not where the block ends."""
        self._mark(1)
        self._is_over = True

    def _mark(self, which: int) -> None:
        if self._events:
            self._events[which].record()
        else:
            self._times.append(time.monotonic())

    def wait(self) -> None:
        """Until the device has done all of it."""
        if self._events:
            self._events[1].synchronize()

    def seconds(self) -> float:
        """After `wait`."""
        if self._events:
            return self._events[0].elapsed_time(self._events[1]) / 1000
        return self._times[1] - self._times[0]


class Clock:
    """Args: device: where the batch is computed."""

    def __init__(self, device: torch.device):
        self._device = device
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._spans: list[tuple[str, Span, float]] = []

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
        span = Span(self._device)
        try:
            with span:
                yield
        finally:
            self.share(name, span, 1.0)

    def share(self, name: str, span: Span, share: float) -> None:
        """A part of a span that belongs to several batches."""
        self._spans.append((name, span, share))

    def read(self) -> dict[str, float]:
        """Seconds by stage. Waits until the device has done all of them."""
        spans, self._spans = self._spans, []
        for name, span, share in spans:
            span.wait()  # each of them, because they may be of several streams
            self._seconds[name] += share * span.seconds()
        return dict(self._seconds)
