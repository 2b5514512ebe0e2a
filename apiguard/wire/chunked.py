"""The chunked transfer coding, RFC 9112 section 7.1: decoding only.

Extensions and trailers are read within bounds and dropped: nothing Kubernetes uses them for, and
merging them into headers is how identities get smuggled.
"""

from __future__ import annotations

import re

LINE_LIMIT = 4096
"""Bytes of one chunk-size line with its extensions."""

_HEX = b"0123456789abcdefABCDEF"
_EXTENSION = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class ChunkError(ValueError):
    """The coding is broken, or its trailers are ``too_large``; never quotes input."""

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


class ChunkedDecoder:
    """Decodes one body. ``feed`` until ``done``; bytes after the end are left alone.

    Trailers share the bounds of the head they belong to: ``trailer_bytes``, ``trailer_fields``.
    """

    __slots__ = (
        "_bytes_left",
        "_fields_left",
        "_left",
        "_line",
        "_need_crlf",
        "_trailers",
        "done",
    )

    def __init__(self, *, trailer_bytes: int = 65_536, trailer_fields: int = 256) -> None:
        self._left = 0  # data bytes missing of the current chunk
        self._need_crlf = False  # a chunk's data is complete, its CRLF is not
        self._line = b""  # an incomplete line
        self._trailers = False
        self._bytes_left = trailer_bytes
        self._fields_left = trailer_fields
        self.done = False

    @property
    def between(self) -> bool:
        """A chunk has just ended and no byte of the next is here."""
        return not (self._left or self._need_crlf or self._line or self._trailers)

    def feed(self, data: bytes, pos: int, pieces: list[bytes]) -> int:
        """Appends body bytes to ``pieces``; returns how far ``data`` was read.

        Raises ChunkError. When it returns less than ``len(data)`` the body is ``done``.
        """
        end = len(data)
        while pos < end and not self.done:
            if self._left:
                take = min(self._left, end - pos)
                pieces.append(data[pos : pos + take])
                pos += take
                self._left -= take
                if not self._left:
                    self._need_crlf = True
                continue
            at = data.find(b"\n", pos)
            if at < 0:
                self._line += data[pos:]
                self._check_partial()
                return end
            line = self._line + data[pos : at + 1] if self._line else data[pos : at + 1]
            self._line = b""
            pos = at + 1
            self._take_line(line)
        return pos

    def _check_partial(self) -> None:
        if self._need_crlf and self._line != b"\r":
            raise ChunkError("chunk data is longer than its size")
        if self._trailers:
            if len(self._line) > self._bytes_left + 1:  # the CR of a line that just fits
                raise ChunkError("trailers too large", too_large=True)
        elif len(self._line) > LINE_LIMIT:
            raise ChunkError("chunk line too long")

    def _take_line(self, line: bytes) -> None:
        if line[-2:] != b"\r\n":
            raise ChunkError("bare line feed in chunked body")
        if self._need_crlf:
            if len(line) != 2:
                raise ChunkError("chunk data is longer than its size")
            self._need_crlf = False
        elif self._trailers:
            self._take_trailer(line)
        else:
            self._take_size(line)

    def _take_size(self, line: bytes) -> None:
        size = line[:-2]
        at = size.find(b";")
        if at >= 0:
            if not _EXTENSION.fullmatch(size, at):
                raise ChunkError("control byte in chunk extension")
            size = size[:at]
        if not size or len(size) > 15 or size.translate(None, _HEX):
            raise ChunkError("malformed chunk size")
        if len(line) > LINE_LIMIT:
            raise ChunkError("chunk line too long")
        self._left = int(size, 16)
        if not self._left:
            self._trailers = True

    def _take_trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.done = True
            return
        self._bytes_left -= len(line)
        self._fields_left -= 1
        if self._bytes_left < 0 or self._fields_left < 0:
            raise ChunkError("trailers too large", too_large=True)
        if not _TRAILER.fullmatch(line, 0, len(line) - 2):
            raise ChunkError("malformed trailer")
