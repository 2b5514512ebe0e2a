"""Long answers: watches that go on, lists of 40 MB, and readers that stop reading."""

from __future__ import annotations

import select
import ssl
import time
import zlib
from collections.abc import Callable, Sequence
from functools import cache

from loadtests.bench import procfs, traffic
from loadtests.bench.generator.connection import (
    Answers,
    Connection,
    body_length,
    client_tls,
    connect,
    status_of,
)
from loadtests.bench.generator.memory import settled
from loadtests.bench.generator.spec import Numbers, Spec, WrongAnswerError

_SILENCE = 10.0


def watch(spec: Spec) -> Numbers:
    """``units`` events delivered, over all watchers. The first watcher's bytes are compared."""
    readers: list[Reader] = [EventCounter() for _ in range(spec.connections - 1)]
    return _measure(spec, [EventChecker(), *readers])


def fetch_lists(spec: Spec) -> Numbers:
    """``units`` MiB of list bodies delivered. The first connection's lists are compared."""
    readers: list[Reader] = [ListCounter() for _ in range(spec.connections - 1)]
    return _measure(spec, [ListChecker(), *readers])


def stall(spec: Spec) -> Numbers:
    """Memory of the proxy per reader that asked for 40 MB and stopped reading.

    ``connection_kib``: what a client's connection costs that has had one small answer;
    ``growth_kib``: what is held for it once it stops reading, on top of that. One list is read in
    full beforehand, so that what the proxy keeps anyway is not counted.
    """
    request = traffic.TRAFFIC[spec.traffic]().requests[0]
    tls = client_tls(spec.authority)
    checker = ListChecker()
    streams = Streams()
    streams.add(connect(spec.port, tls), checker, request)
    streams.until(lambda: checker.lists > 0)
    before = settled(spec.proxy)
    stalled = _used_connections(spec, tls)
    idle = settled(spec.proxy)
    for connection in stalled:
        connection.send(request)
    full = settled(spec.proxy)
    for connection in stalled:
        if status_of(_some_bytes(connection)) != 200:
            raise WrongAnswerError("a stalled reader was not answered 200")
        connection.close()
    return {
        "units": spec.connections,
        "cpu_seconds": 0.0,
        "seconds": 0.0,
        "connection_kib": max(0.0, (idle - before) / spec.connections / 1024),
        "growth_kib": max(0.0, (full - idle) / spec.connections / 1024),
    }


def _used_connections(spec: Spec, tls: ssl.SSLContext | None) -> list[Connection]:
    """Connections that have had an answer each, all at once: upstream connections exist as well."""
    common = traffic.common()
    answers = Answers(common)
    connections = [connect(spec.port, tls) for _ in range(spec.connections)]
    for connection in connections:
        connection.send(common.requests[0])
    for connection in connections:
        while not answers.complete(connection, _some_bytes(connection)):
            pass
    return connections


class Reader:
    """What is done with the bytes of one connection; ``units`` grows with what is delivered."""

    units: float = 0.0

    def feed(self, connection: Connection, data: bytes, request: bytes) -> None:
        raise NotImplementedError


class EventCounter(Reader):
    """Counts events by a byte that occurs once in each; checks no more than that, to be cheap."""

    def feed(self, connection: Connection, data: bytes, request: bytes) -> None:
        self.units += data.count(traffic.EVENT_MARK)


class EventChecker(Reader):
    """Decodes everything and wants every event whole, in order, none missing."""

    def __init__(self) -> None:
        self._decoder = Dechunker()
        self._text = b""
        self._last = 0

    def feed(self, connection: Connection, data: bytes, request: bytes) -> None:
        self._text += self._decoder.feed(data)
        while (end := self._text.find(b"\n")) >= 0:
            line, self._text = self._text[: end + 1], self._text[end + 1 :]
            number = self._last + 1 if self._last else int(line.partition(b'Version":"')[2][:12])
            if line != traffic.event(number):
                raise WrongAnswerError(f"not event {number}: {line[:120]!r}")
            self._last = number
            self.units += 1


class ListCounter(Reader):
    """Counts bytes, finds the end of each list, and asks for the next."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, connection: Connection, data: bytes, request: bytes) -> None:
        self.units += len(data) / 2**20
        self._tail = (self._tail + data)[-5:]
        if self._tail == b"0\r\n\r\n":
            self._tail = b""
            connection.send(request)


class ListChecker(Reader):
    """Decodes every list and compares its checksum."""

    def __init__(self) -> None:
        self.lists = 0
        self._decoder = Dechunker()
        self._sum = 0

    def feed(self, connection: Connection, data: bytes, request: bytes) -> None:
        body = self._decoder.feed(data)
        self._sum = zlib.crc32(body, self._sum)
        self.units += len(body) / 2**20
        if self._decoder.ended:
            if self._sum != _list_checksum():
                raise WrongAnswerError("the list's bytes differ")
            self.lists += 1
            self._decoder, self._sum = Dechunker(), 0
            connection.send(request)


class Dechunker:
    """Takes an answer's bytes and gives its body's; chunked and counted bodies alike."""

    def __init__(self) -> None:
        self.ended = False
        self._buffer = b""
        self._headed = False
        self._chunked = False
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        if not self._headed and not self._take_head():
            return b""
        parts = []
        while self._buffer and not self.ended:
            if self._left:
                part, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
                self._left -= len(part)
                parts.append(part)
                self.ended = not self._chunked and not self._left
            elif not self._take_size():
                break
        return b"".join(parts)

    def _take_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return False
        head, self._buffer = self._buffer[:end], self._buffer[end:]
        if status_of(head) != 200:
            raise WrongAnswerError(f"status {status_of(head)}: {head!r}")
        length = body_length(head)
        self._headed = True
        self._chunked = length < 0
        self._left = max(0, length)
        return True

    def _take_size(self) -> bool:
        """A chunk's size line, with the line end of the chunk before it."""
        start = 2 if self._buffer.startswith(b"\r\n") else 0
        end = self._buffer.find(b"\r\n", start)
        if end < 0:
            return False
        self._left = int(self._buffer[start:end], 16)
        if not self._left:
            if len(self._buffer) < end + 4:
                return False
            self.ended = True
        self._buffer = self._buffer[end + 2 :]
        return True


class Streams:
    """Connections whose answers are read as they come."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._open: dict[int, tuple[Connection, Reader, bytes]] = {}

    def add(self, connection: Connection, reader: Reader, request: bytes) -> None:
        """Sends ``request``; ``reader`` is fed what comes back, and may send it again."""
        self._open[connection.fileno()] = connection, reader, request
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        connection.send(request)

    def until(self, enough: Callable[[], bool]) -> None:
        """Read until ``enough()`` says so."""
        while not enough():
            ready = self._epoll.poll(_SILENCE)
            if not ready:
                raise WrongAnswerError(f"nothing arrived for {_SILENCE:.0f} s")
            for descriptor, _ in ready:
                connection, reader, request = self._open[descriptor]
                if data := connection.receive():
                    reader.feed(connection, data, request)

    def read_for(self, seconds: float) -> None:
        """Whatever arrives within the next ``seconds``."""
        end = time.perf_counter() + seconds
        self.until(lambda: time.perf_counter() >= end)


def _measure(spec: Spec, readers: Sequence[Reader]) -> Numbers:
    request = traffic.TRAFFIC[spec.traffic]().requests[0]
    tls = client_tls(spec.authority)
    streams = Streams()
    for reader in readers:
        streams.add(connect(spec.port, tls), reader, request)
    streams.read_for(spec.warmup)
    streams.until(lambda: all(reader.units for reader in readers))
    units = sum(reader.units for reader in readers)
    before, started = procfs.cpu_seconds(spec.proxy), time.perf_counter()
    streams.read_for(spec.seconds)
    return {
        "units": sum(reader.units for reader in readers) - units,
        "cpu_seconds": procfs.cpu_seconds(spec.proxy) - before,
        "seconds": time.perf_counter() - started,
    }


def _some_bytes(connection: Connection) -> bytes:
    if not select.select([connection.sock], [], [], _SILENCE)[0]:
        raise WrongAnswerError(f"nothing arrived for {_SILENCE:.0f} s")
    return connection.receive()


@cache
def _list_checksum() -> int:
    return zlib.crc32(traffic.a_list())
