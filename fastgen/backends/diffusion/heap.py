"""Main memory that tensors on a CPU have freed stays with the process, for the next tensors. Knows no tensors.

By default glibc gives large blocks back to the system as soon as they are free, and the next step gets its memory page
by page again: a fifth of the processor time of a step, and a quarter of that of a VAE's decoder (bench/LOG.md).
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's `mallopt`."""
LARGEST = 32 << 20
"""Bytes of a block that is kept; more is not allowed in every version of glibc."""
MOST = 1 << 30
"""Bytes that are kept at the end of a heap."""
HEAP = 64 << 20
"""Bytes of a part of a thread's heap: one that is empty is kept too."""


def keep_freed_memory() -> bool:
    """From now on, in all threads of this process. Returns whether the C library knows how."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    wanted = ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, MOST), (TOP_PAD, HEAP + (1 << 20)))
    return all([mallopt(name, value) for name, value in wanted])
