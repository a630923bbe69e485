"""What happens on the fake card: memory, operations, launches, bytes, and waits of the host. Knows no model."""

from __future__ import annotations

import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from tests.rehearsal.cards import CONTEXT_GIB, Card

OWN = ("/rehearsal/meter.py", "/rehearsal/dispatch.py", "/rehearsal/fake_cuda.py")
ENGINE = "engine"
"""How the names of threads that compute begin."""
BLOCK = 512
"""The caching allocator rounds every request up to a multiple of this many bytes."""


@dataclass
class Work:
    """What was done between two moments."""

    flops: int = 0
    float32_flops: int = 0
    """Of these, in matrix products of float32."""
    moved_bytes: int = 0
    """Read and written by kernels."""
    launches: int = 0
    to_device_bytes: int = 0
    to_host_bytes: int = 0
    between_bytes: int = 0
    """From one card to another."""
    syncs: Counter[str] = field(default_factory=Counter)
    """What made the host wait for the device, and where: "item backends/diffusion/denoise.py:221 _blocks"."""

    def copy(self) -> Work:
        return Work(**{**vars(self), "syncs": Counter(self.syncs)})

    def __iadd__(self, more: Work) -> Work:
        for name, value in vars(more).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    def __sub__(self, before: Work) -> Work:
        names = [name for name in vars(self) if name != "syncs"]
        return Work(
            **{name: getattr(self, name) - getattr(before, name) for name in names},
            syncs=self.syncs - before.syncs,
        )


class Meter:
    """Fake cards of one kind. `lives` and `peaks` are bytes on each, the CUDA context included; `live` and `peak` are
    those of the first.

    Args:
        count: how many cards.
        answer: the number that the host reads wherever it asks the device for a float: the distance of a step cache.
    """

    def __init__(self, card: Card, answer: float = 0.0, count: int = 1):
        self.card = card
        self.answer = answer
        self.work = Work()
        self.lives = [int(CONTEXT_GIB * 2**30)] * count
        self.peaks = list(self.lives)
        self.peak_at = ""
        """The line of fastgen that took the last of the peak of the first card."""
        self.refused = 0
        """How often there was no memory left."""
        self._seen: set[int] = set()
        self._lock = threading.RLock()
        self._local = threading.local()

    @property
    def live(self) -> int:
        return self.lives[0]

    @property
    def peak(self) -> int:
        return self.peaks[0]

    def forget_peaks(self) -> None:
        """From now on the peaks are those of what follows."""
        self.peaks, self.peak_at = list(self.lives), "before"

    def ignore(self, tensor: torch.Tensor) -> None:
        """Its storage takes no memory on a card, now and later."""
        self._seen.add(tensor.untyped_storage()._cdata)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What this thread makes inside the block takes no memory; `born` counts what stays."""
        self._local.is_uncounted = True
        try:
            yield
        finally:
            self._local.is_uncounted = False

    def born(self, tensor: torch.Tensor) -> None:
        """Count the storage of a new tensor, once.

        Raises:
            torch.OutOfMemoryError: the card is full.
        """
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen or getattr(self._local, "is_uncounted", False):
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        at = tensor.device.index or 0
        with self._lock:
            self._check(size, at)
            self._seen.add(key)
            self.lives[at] += size
            self._rise(at, self.lives[at])
        weakref.finalize(storage, self._died, key, size, at).atexit = False

    def _died(self, key: int, size: int, at: int) -> None:
        with self._lock:
            self._seen.discard(key)
            self.lives[at] -= size

    def add(self, work: Work, rise_bytes: int, rise_at: str) -> None:
        """Work like some that was done before, during which so many bytes more were on the first card for a while.

        Raises:
            torch.OutOfMemoryError: they do not fit.
        """
        with self._lock:
            self._check(rise_bytes, 0)
            self.work += work
            self._rise(0, self.live + rise_bytes, rise_at)

    def _check(self, size: int, at: int) -> None:
        if self.lives[at] + size > self.card.memory_bytes:
            self.refused += 1
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size / 2**20:.0f} MiB. {self.card.name} has "
                f"{self.card.gib:.2f} GiB, of which {self.lives[at] / 2**30:.2f} GiB are in use (rehearsed)"
            )

    def _rise(self, at: int, size: int, why: str = "") -> None:
        """So many bytes are on a card now; `why` is the line that took them, "" for this one."""
        if size > self.peaks[at]:
            self.peaks[at] = size
            self.peak_at = self.peak_at if at else why or where()

    def sync(self, what: str) -> None:
        """The host waits for the device, at the innermost line of fastgen. "elsewhere": in a thread that only saves
        images, so the one that computes goes on meanwhile."""
        own = threading.current_thread().name.startswith(ENGINE)
        self.work.syncs[f"{what} {where()}{'' if own else ' elsewhere'}"] += 1


def where() -> str:
    """The innermost line of fastgen on the stack: "opt/offload.py:56 onload"; else the innermost that is not torch."""
    frame, outside = sys._getframe(1), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if "/fastgen/" in name and "/tests/" not in name:
            return f"{name.rpartition('/fastgen/')[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        if not outside and "/torch/" not in name and not name.endswith(OWN):
            outside = f"{name.rpartition('/')[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return outside
