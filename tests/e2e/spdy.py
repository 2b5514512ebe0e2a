"""As much of SPDY/3.1 as kubectl's streams use, for the server's side, without a socket.

Frames: draft-mbelshe-httpbis-spdy-00, sections 2.2 and 2.6. Flow control is absent, as it is in
the implementation that Kubernetes uses on both ends.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language "
    "accept-ranges age allow authorization cache-control connection content-base "
    "content-encoding content-language content-length content-location content-md5 "
    "content-range content-type date etag expect expires from host if-match if-modified-since "
    "if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer "
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method get status"
)
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
    "Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _word(text: str) -> bytes:
    return struct.pack(">I", len(text)) + text.encode()


_PHRASES = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
DICTIONARY = b"".join(map(_word, (*_NAMES.split(" "), *_PHRASES))) + _REST.encode()
"""Section 2.6.10.1: the dictionary both sides prime zlib with."""

_SYN_STREAM, _SYN_REPLY, _PING = 1, 2, 6
_CONTROL = 0x8003  # control bit and version 3
_FIN = 0x01


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened a stream."""

    stream: int
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes on a stream; ``last`` when its sender is done."""

    stream: int
    data: bytes
    last: bool


class SpdyServer:
    """Bytes in, events out; what has to be sent is in ``output``."""

    def __init__(self) -> None:
        self.output = bytearray()
        self._input = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def receive(self, data: bytes) -> Iterator[Opened | Data]:
        """Streams are accepted and pings answered on the way."""
        self._input += data
        while len(self._input) >= 8:
            head, sizes = struct.unpack_from(">II", self._input)
            length = sizes & 0xFFFFFF
            if len(self._input) < 8 + length:
                return
            body = bytes(self._input[8 : 8 + length])
            del self._input[: 8 + length]
            flags = sizes >> 24
            if not head >> 31:
                yield Data(head, body, bool(flags & _FIN))
            elif head >> 16 == _CONTROL:
                yield from self._control(head & 0xFFFF, flags, body)

    def send(self, stream: int, data: bytes, *, last: bool = False) -> None:
        flags = _FIN if last else 0
        self.output += struct.pack(">II", stream, flags << 24 | len(data)) + data

    def _control(self, kind: int, flags: int, body: bytes) -> Iterator[Opened | Data]:
        if kind == _PING:
            self._frame(_PING, body)
        if kind != _SYN_STREAM:
            return
        stream = int.from_bytes(body[:4], "big")
        headers = _headers(self._inflate.decompress(body[10:]))
        none = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._frame(_SYN_REPLY, struct.pack(">I", stream) + none)
        yield Opened(stream, headers)
        if flags & _FIN:
            yield Data(stream, b"", last=True)

    def _frame(self, kind: int, body: bytes) -> None:
        self.output += struct.pack(">HHI", _CONTROL, kind, len(body)) + body


def _headers(block: bytes) -> dict[str, str]:
    (count,) = struct.unpack_from(">I", block)
    at, found = 4, []
    for _ in range(2 * count):
        (length,) = struct.unpack_from(">I", block, at)
        found.append(block[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return dict(zip(found[::2], found[1::2], strict=True))
