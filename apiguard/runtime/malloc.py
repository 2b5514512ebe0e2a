"""glibc's malloc: where it puts what is large, and when it gives freed pages back.

Another C library has neither call; there nothing happens.
"""

from __future__ import annotations

import ctypes
from typing import Final

MAPPED_BYTES: Final = 256 << 10
"""Allocations from this size have a mapping of their own: what uvloop keeps per TLS connection
is just that long. What is allocated per read or write must stay below, or each costs two system
calls and the faults of its pages: with pieces of 256 KiB a relayed list cost twice the CPU."""

KEPT_BYTES: Final = 4 << 20
"""Free memory at the heap's end that is kept rather than given back and asked for again."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def place() -> None:
    """Has what is large and lasts mapped apart: mallopt(3). Both sizes are fixed from here on;
    left alone, glibc moves them by what a process happens to free."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def trim() -> None:
    """Gives freed pages back to the kernel: malloc_trim(3)."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
