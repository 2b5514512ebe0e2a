"""Reading: one buffer for all connections of a process, and where malloc puts the rest.

Left to ``asyncio.Protocol``, uvloop allocates 256 KiB for every read of a TLS connection and gives
nearly all of it back, beside the 256 KiB each connection keeps for what arrives encrypted. What
glibc makes of that depends on what a process happened to free before: mappings, and a bare proxy
needs twice the CPU per request; or one heap, where these blocks and OpenSSL's buffers of handshakes
leave holes that stay resident, and a bare connection holds 46 KiB rather than 24.

Read into one buffer there is nothing to give back, and what each connection keeps has a mapping of
its own, of which only the touched pages are resident: an idle watcher over TLS holds 29 KiB, it
held 50, a client that has stopped reading a forwarded list 690 rather than 840. Requests and lists
cost the same CPU within what rounds differ.
"""

from __future__ import annotations

import asyncio
import ctypes

MAPPED_BYTES = 256 << 10
"""Allocations from this size have a mapping of their own: what uvloop keeps per TLS connection
is just that long. What is allocated per read or write must stay below, or each costs two system
calls and the faults of its pages: with pieces of 256 KiB a relayed list cost twice the CPU."""

READ_BYTES = 240 << 10
"""Of one read, at most; encrypted again it is still shorter than ``MAPPED_BYTES``."""

KEPT_BYTES = 4 << 20
"""Free memory at the heap's end that is kept rather than given back and asked for again."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

_read = memoryview(bytearray(READ_BYTES))


class Reader(asyncio.BufferedProtocol):
    """A protocol whose ``data_received`` gets bytes of its own.

    One buffer serves all connections: between ``get_buffer`` and ``buffer_updated`` loops do
    nothing but that read.
    """

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(_read[:nbytes]))

    def data_received(self, data: bytes) -> None:
        raise NotImplementedError


def place_buffers() -> None:
    """Has glibc's malloc map what is large and lasts: mallopt(3). Nothing elsewhere."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
