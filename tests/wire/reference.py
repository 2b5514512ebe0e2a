"""Readers written plainly, from RFC 9112, to compare the codec with: whole input, no state.

They share no code with what they check.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER = re.compile(_TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n")


class InvalidError(Exception):
    """The input can never become valid."""


class IncompleteError(Exception):
    """The input ends too early, and nothing in it is wrong so far."""


def dechunk(data: bytes) -> tuple[bytes, int]:
    """Body and length of the chunked body that ``data`` begins with.

    Raises InvalidError or IncompleteError; an error in a line without its end may count as either.
    """
    body, pos = b"", 0
    while True:
        line, pos = _line(data, pos)
        match = _SIZE_LINE.fullmatch(line)
        if match is None or len(line) > 4096:
            raise InvalidError
        size = int(match[1], 16)
        if size == 0:
            return body, _trailers(data, pos)
        if len(data) < pos + size:
            raise IncompleteError
        body += data[pos : pos + size]
        pos += size
        end = data[pos : pos + 2]
        if end not in (b"", b"\r", b"\r\n"):
            raise InvalidError
        if len(end) < 2:
            raise IncompleteError
        pos += 2


def _line(data: bytes, pos: int) -> tuple[bytes, int]:
    at = data.find(b"\n", pos)
    if at < 0:
        raise IncompleteError
    return data[pos : at + 1], at + 1


def _trailers(data: bytes, pos: int) -> int:
    while True:
        line, pos = _line(data, pos)
        if line == b"\r\n":
            return pos
        if not _TRAILER.fullmatch(line):
            raise InvalidError


@dataclass
class Message:
    """One message as the other end reads it. ``ended`` is False while its body is incomplete."""

    first: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    ended: bool = True
    interim: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.first.split(b" ")[1])

    @property
    def method(self) -> str:
        return self.first.split(b" ")[0].decode("ascii")

    @property
    def target(self) -> str:
        return self.first.split(b" ")[1].decode("ascii")

    def values(self, name: bytes) -> list[bytes]:
        return [value for field, value in self.fields if field.lower() == name.lower()]

    def get(self, name: bytes) -> bytes | None:
        return next(iter(self.values(name)), None)

    @property
    def names(self) -> set[bytes]:
        return {name.lower() for name, _ in self.fields}


def read_responses(data: bytes, *methods: str, closed: bool = False) -> list[Message]:
    """The answers to requests by ``methods``, in order; ``closed``: nothing follows ``data``.

    Raises InvalidError where a client would choke, also for bytes after the last answer.
    """
    answers: list[Message] = []
    pos = 0
    for method in methods:
        interim: list[Message] = []
        while True:
            if data.find(b"\r\n\r\n", pos) < 0:
                if pos != len(data):
                    raise IncompleteError
                return answers
            message, pos = _head(data, pos)
            if 100 <= message.status < 200 and message.status != 101:
                if {b"content-length", b"transfer-encoding"} & message.names:
                    raise InvalidError
                interim.append(message)
                continue
            break
        message.interim = interim
        pos = _response_body(message, method, data, pos, closed=closed)
        answers.append(message)
    if pos != len(data):
        raise InvalidError
    return answers


def read_requests(data: bytes) -> list[Message]:
    """All requests in ``data``; the last may be unfinished."""
    requests: list[Message] = []
    pos = 0
    while pos < len(data):
        message, pos = _head(data, pos)
        pos = _framed_body(message, data, pos)
        requests.append(message)
    return requests


def _head(data: bytes, pos: int) -> tuple[Message, int]:
    at = data.find(b"\r\n\r\n", pos)
    if at < 0:
        raise IncompleteError
    first, *lines = data[pos:at].split(b"\r\n")
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not re.fullmatch(_TOKEN, name) or b"\n" in value or b"\r" in value:
            raise InvalidError
        fields.append((name, value.strip(b" \t")))
    return Message(first, fields), at + 4


def _framed_body(message: Message, data: bytes, pos: int) -> int:
    """By length or chunks; RFC 9112 section 6.3. No body without either."""
    lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1 or codings not in ([], [b"chunked"]):
        raise InvalidError
    if codings:
        try:
            message.body, size = dechunk(data[pos:])
        except IncompleteError:
            message.body, message.ended = _chunks_so_far(data[pos:]), False
            return len(data)
        return pos + size
    length = int(lengths[0]) if lengths else 0
    message.body = data[pos : pos + length]
    message.ended = len(message.body) == length
    return pos + len(message.body)


def _chunks_so_far(data: bytes) -> bytes:
    """The body of an unfinished chunked message, for messages written in whole chunks."""
    body, pos = b"", 0
    while (at := data.find(b"\r\n", pos)) >= 0:
        size = int(data[pos:at], 16)
        body += data[at + 2 : at + 2 + size]
        pos = at + 2 + size + 2
    return body


def _response_body(message: Message, method: str, data: bytes, pos: int, *, closed: bool) -> int:
    if message.status == 101:
        message.body = data[pos:]
        message.ended = closed
        return len(data)
    if message.status == 204 and {b"content-length", b"transfer-encoding"} & message.names:
        raise InvalidError
    if method == "HEAD" or message.status in (204, 304):
        return pos
    if message.values(b"content-length") or message.values(b"transfer-encoding"):
        return _framed_body(message, data, pos)
    message.body = data[pos:]
    message.ended = closed
    return len(data)
