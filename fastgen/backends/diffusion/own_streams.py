"""CUDA streams that only one group uses: the host can wait for what this group computes while other groups go on. Does
not know steps or models.

Everything else is enqueued on the default streams. So there are two borders: what a group needs is ready before it
begins, and what it made is ready for whoever reads it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch


class OwnStreams:
    """Args: devices: those on which the group computes; () for one that uses the default streams."""

    def __init__(self, devices: Iterable[torch.device] = ()):
        # The first device comes last: the stream that is set last decides which GPU is the current one.
        gpus = [device for device in dict.fromkeys(devices) if device.type == "cuda"][::-1]
        self._streams = [torch.cuda.Stream(device) for device in gpus]

    def begin(self) -> None:
        """What is enqueued inside from now on comes after all that was enqueued outside before."""
        for stream in self._streams:
            stream.wait_stream(torch.cuda.current_stream(stream.device))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Work in this block is enqueued here."""
        with ExitStack() as stack:
            for stream in self._streams:
                stack.enter_context(torch.cuda.stream(stream))
            yield

    def end(self) -> None:
        """What is enqueued outside from now on comes after all that was enqueued inside."""
        for stream in self._streams:
            torch.cuda.current_stream(stream.device).wait_stream(stream)

    def brought_out(self, made: torch.Tensor) -> torch.Tensor:
        """After `end`: a tensor that was made inside, for use outside. A copy, because what the next group makes takes
        the memory of the original as soon as nobody names it."""
        return made.clone() if self._streams else made
