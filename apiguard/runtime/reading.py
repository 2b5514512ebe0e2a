"""Reading: one buffer for all connections of a process.

Left to ``asyncio.Protocol``, uvloop allocates 256 KiB for every read of a TLS connection and gives
nearly all of it back, beside the 256 KiB each connection keeps for what arrives encrypted. What
glibc makes of that depends on what a process happened to free before: mappings, and a bare proxy
needs twice the CPU per request; or one heap, where these blocks and OpenSSL's buffers of handshakes
leave holes that stay resident, and a bare connection holds 46 KiB rather than 24.

Read into one buffer there is nothing to give back, and what each connection keeps has a mapping of
its own (``malloc``), of which only the touched pages are resident: an idle watcher over TLS holds
29 KiB, it held 50, a client that has stopped reading a forwarded list 690 rather than 840. Requests
and lists cost the same CPU within what rounds differ.
"""

from __future__ import annotations

import asyncio

READ_BYTES = 240 << 10
"""Of one read, at most; encrypted again it is still shorter than ``malloc.MAPPED_BYTES``."""

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
