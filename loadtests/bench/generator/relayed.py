"""Clients of relays: lists and watches of the pods in ``bench.pods``.

Every mode first says how often the collection changes (``Spec.rate``, ``Spec.pods``), and stops the
changes at its end, so that the windows of other rows are not disturbed. What arrives is checked on
the first connection in full, on the others by what is cheap to check.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtests.bench import certificates, pods, procfs, traffic
from loadtests.bench.figures import quantile
from loadtests.bench.generator.connection import (
    Connection,
    body_length,
    client_tls,
    connect,
    status_of,
)
from loadtests.bench.generator.memory import settled
from loadtests.bench.generator.spec import Numbers, Spec, WrongAnswerError
from loadtests.bench.generator.streams import Dechunker, Reader, Streams
from loadtests.bench.peers.guard import ADMIN_TOKEN
from loadtests.bench.podserver import PACE_PATH

_MS = 1e3
_NS = 1e6
_KIB = 1024
_LISTS_EACH = 1.5
"""Lists of a window at least, per reader: on a busy machine it may take longer than planned."""
_BODIES_CEILING = 128 << 20
_LOG_CEILING = 64 << 20
_HISTORY = 16_000
"""Changes that do not fit into the log: the object before and the event of each are 8 KB."""
_IDLE_SECONDS = 1.0
_CONNECT_DEADLINE = 30.0
_UNLIKE = 0.1
"""Part by which a list may differ in length: kube-apiserver writes down more than it was told."""
_PROBE_SECONDS = 0.5
"""Until the loop's probe has surely written what happened."""
_AT_ONCE = 100
"""Clients that ask at once: what a herd meets is another question than what serving costs."""
_SMALL_SEGMENT = 536
_SMALL_BUFFER = 4096


def lists(spec: Spec) -> Numbers:
    """``units`` lists delivered, whole or in part. What the proxy uses when nobody asks is taken
    off its CPU: how many lists share it depends on the machine."""
    change = (lambda: _set_pace(spec, 0.0, once=True)) if spec.each_changed else None
    idle = _idle_share(spec.proxy)
    with _changing(spec) as start:
        readers = [ListReader(checked=not at, before=change) for at in range(spec.connections)]
        requests = [_list_request()] * spec.connections
        least = _LISTS_EACH * len(readers)
        found = _windowed(spec, requests, readers, start=start, least=least)
    return {**found, "cpu_seconds": found["cpu_seconds"] - idle * found["seconds"]}


def _idle_share(proxy: int) -> float:
    """CPU seconds a second."""
    before = procfs.cpu_seconds(proxy)
    time.sleep(_IDLE_SECONDS)
    return (procfs.cpu_seconds(proxy) - before) / _IDLE_SECONDS


def lag(spec: Spec) -> Numbers:
    """As ``lists``, with what the proxy's loop wrote down meanwhile: ``callback_ms``, the longest;
    ``lag_ms``, the 99.9th percentile."""
    _filled(spec)
    begun = time.monotonic()
    return {**lists(spec), **_probed(Path(spec.probe), begun)}


def filling(spec: Spec) -> Numbers:
    """What filling the relay's cache kept the proxy's loop for, as ``lag``."""
    begun = time.monotonic()
    _filled(spec)
    time.sleep(_PROBE_SECONDS)
    return {**_grown(spec, 0, 1), **_probed(Path(spec.probe), begun)}


def _filled(spec: Spec) -> None:
    """Returns once the relay holds the collection."""
    _begin_watch(connect(spec.port, client_tls(spec.authority)), _set_pace(spec, 0.0))


def watch(spec: Spec) -> Numbers:
    """``units`` events delivered; ``p50_ms`` and ``p99_ms`` from the change to its delivery."""
    revision = _set_pace(spec, 0.0)
    stalled = [_stalled_watcher(spec, revision) for _ in range(spec.stalled)]
    readers = [EventReader(checked=not at) for at in range(spec.connections)]
    requests = [_watch_request(revision)] * spec.connections
    with _changing(spec) as start:
        found = _windowed(spec, requests, readers, start=start, measured=lambda: _forget(readers))
    latencies = sorted(value for reader in readers for value in reader.latencies)
    for sock in stalled:
        sock.close()
    return {
        **found,
        "p50_ms": quantile(latencies, 0.5) / _NS,
        "p99_ms": quantile(latencies, 0.99) / _NS,
    }


def nodes(spec: Spec) -> Numbers:
    """``units`` events delivered, each of one change to the one watcher of its pod's node.

    What the watchers cost while nothing changes (deadlines, reviews again every minute) is taken
    off, and told as ``idle_ms``: CPU a second.
    """
    revision = _set_pace(spec, 0.0)
    readers = [EventReader(checked=not at) for at in range(spec.connections)]
    requests = [
        _watch_request(revision, f"&fieldSelector=spec.nodeName%3D{pods.node(at)}")
        for at in range(spec.connections)
    ]
    idle: list[float] = []
    with _changing(spec) as start:

        def begin() -> None:
            idle.append(_idle_share(spec.proxy))
            start()

        found = _windowed(spec, requests, readers, start=begin)
    cpu = found["cpu_seconds"] - idle[0] * found["seconds"]
    return {**found, "cpu_seconds": cpu, "idle_ms": idle[0] * _MS}


def idle(spec: Spec) -> Numbers:
    """``growth_kib``: resident memory per watcher that hears nothing."""
    revision = _set_pace(spec, 0.0)
    tls = client_tls(spec.authority)
    _begin_watch(connect(spec.port, tls), revision)
    before = settled(spec.proxy)
    for _ in range(spec.connections):
        _begin_watch(connect(spec.port, tls), revision)
    return _grown(spec, settled(spec.proxy) - before, spec.connections)


def fill(spec: Spec) -> Numbers:
    """``share``: resident memory that holding all pods takes, by the bytes of the pods."""
    before = settled(spec.proxy)
    _filled(spec)
    stored = pods.PODS * pods.POD_BYTES
    grown = settled(spec.proxy) - before
    return {**_grown(spec, grown, stored), "share": grown / stored}


def stall(spec: Spec) -> Numbers:
    """``growth_kib``: resident memory per reader that asked for the list and takes none of it,
    beyond what a connection and the list built for everybody take."""
    tls = client_tls(spec.authority)
    _read_once(spec, _list_request())
    readers = [connect(spec.port, tls) for _ in range(spec.connections)]
    before = settled(spec.proxy)
    for reader in readers:
        reader.send(_list_request())
    return _grown(spec, settled(spec.proxy) - before, spec.connections)


def ceilings(spec: Spec) -> Numbers:
    """More built lists and more history than may be kept: ``bodies_share`` and ``log_share`` of
    their ceilings, as the guard says; ``share``: resident memory that came on top of the objects,
    by both ceilings together."""
    _filled(spec)
    before = settled(spec.proxy)
    for tier in range(pods.TIERS):
        _read_once(spec, _request(f"resourceVersion=0&labelSelector=tier%21%3Dtier-{tier}"))
    with _changing(spec) as start:
        first = start()
        while start() - first < _HISTORY:
            time.sleep(1.0)
    held = _held(spec.admin)
    return {
        **_grown(spec, 0, 1),
        "bodies_share": held["bodies"] / _BODIES_CEILING,
        "log_share": held["log"] / _LOG_CEILING,
        "share": (settled(spec.proxy) - before) / (_BODIES_CEILING + _LOG_CEILING),
    }


def _read_once(spec: Spec, request: bytes) -> None:
    """One list, whole."""
    reader, streams = ListReader(checked=False, again=False), Streams()
    streams.add(connect(spec.port, client_tls(spec.authority)), reader, request)
    streams.until(lambda: reader.lists > 0)


def _held(admin: int) -> dict[str, int]:
    """Bytes of the one cache, by what they are for."""
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=5)
    try:
        connection.request("GET", "/v1/relay", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        (cache,) = json.load(connection.getresponse())["caches"]
    finally:
        connection.close()
    return dict(cache["bytes"])


def _grown(spec: Spec, grown: int, units: int) -> Numbers:
    return {
        "units": units,
        "cpu_seconds": 0.0,
        "seconds": 0.0,
        "growth_kib": max(0.0, grown / spec.connections / _KIB),
    }


# --- requests -----------------------------------------------------------------------------------


def _request(query: str) -> bytes:
    """As an agent's, but for gzip: what is compared is bytes as they are."""
    whole = traffic.request(f"{pods.PATH}?{query}")
    return whole.replace(b"Accept-Encoding: gzip\r\n", b"")


def _list_request() -> bytes:
    return _request("resourceVersion=0")


def _watch_request(revision: int, more: str = "") -> bytes:
    return _request(f"watch=1&resourceVersion={revision}&timeoutSeconds=3000{more}")


def _set_pace(spec: Spec, rate: float, *, once: bool = False) -> int:
    """Returns the collection's latest revision; 0 where nothing can change it. ``once``: another
    change happens now."""
    if not spec.pace:
        return 0
    connection = http.client.HTTPConnection("127.0.0.1", spec.pace, timeout=10)
    try:
        query = f"rate={rate}&pods={spec.pods or pods.PODS}" + ("&once=1" if once else "")
        connection.request("GET", f"{PACE_PATH}?{query}")
        return int(json.load(connection.getresponse())["revision"])
    finally:
        connection.close()


@contextmanager
def _changing(spec: Spec) -> Iterator[Callable[[], int]]:
    """Yields what lets changes begin, or go on, and tells the latest revision; they stop at the
    end."""
    try:
        yield lambda: _set_pace(spec, spec.rate)
    finally:
        _set_pace(spec, 0.0)


# --- readers ------------------------------------------------------------------------------------


class _Reader(Reader):
    """``begun`` once anything was answered."""

    begun = False


class ListReader(_Reader):
    """Counts lists, asks for the next if ``again``, having called ``before``; the first list of a
    ``checked`` one is decoded."""

    def __init__(
        self, *, checked: bool, again: bool = True, before: Callable[[], object] | None = None
    ) -> None:
        self.lists = 0
        self._again = again
        self._before = before
        self._decoder: Dechunker | None = Dechunker() if checked else None
        self._parts: list[bytes] = []
        self._head = b""
        self._left = 0  # bytes of a counted body; -1 for chunked
        self._tail = b""

    def feed(self, connection: Connection, data: bytes, request: bytes) -> None:
        self.begun = True
        self.units += len(data) / pods.LIST_BYTES
        if self._decoder is not None:
            self._parts.append(self._decoder.feed(data))
            ended = self._decoder.ended
        else:
            ended = self._ends(data)
        if ended:
            self._ended()
            if self._before is not None:
                self._before()
            if self._again:
                connection.send(request)

    def _ends(self, data: bytes) -> bool:
        """Whether the answer ends with ``data``: by its length, or by what ends chunks."""
        if not self._left:
            self._head += data
            end = self._head.find(b"\r\n\r\n") + 4
            if end < 4:
                return False
            if status_of(self._head) != 200:
                raise WrongAnswerError(f"status {status_of(self._head)}")
            self._left = body_length(self._head[:end])
            data, self._head = self._head[end:], b""
        if self._left > 0:
            self._left -= len(data)
            return not self._left
        self._tail = (self._tail + data)[-5:]
        return self._tail == b"0\r\n\r\n"

    def _ended(self) -> None:
        self.lists += 1
        self._left, self._tail = 0, b""
        if self._decoder is not None:
            body = b"".join(self._parts)
            unlike = abs(len(body) / pods.LIST_BYTES - 1) > _UNLIKE
            if unlike or len(json.loads(body)["items"]) != pods.PODS:
                raise WrongAnswerError(f"not the list: {len(body)} bytes")
            self._decoder, self._parts = None, []


class EventReader(_Reader):
    """Counts events and notes how old each was; ``checked`` wants revisions without a gap."""

    def __init__(self, *, checked: bool) -> None:
        self.latencies: list[int] = []
        self._decoder = Dechunker() if checked else None
        self._text = b""
        self._last = 0

    def feed(self, connection: Connection, data: bytes, request: bytes) -> None:
        now = time.monotonic_ns()
        if not self.begun:
            if status_of(data) != 200:
                raise WrongAnswerError(f"a watch was refused: {data!r}")
            self.begun = True
        at = data.find(pods.STAMP)
        while at >= 0:
            begin = at + len(pods.STAMP)
            self.units += 1
            stamp = data[begin : begin + pods.STAMP_DIGITS]
            if len(stamp) == pods.STAMP_DIGITS:
                self.latencies.append(now - int(stamp))
            at = data.find(pods.STAMP, begin)
        if self._decoder is not None:
            self._check(self._decoder.feed(data))

    def _check(self, text: bytes) -> None:
        *lines, self._text = (self._text + text).split(b"\n")
        for line in lines:
            told = json.loads(line)
            revision = int(told["object"]["metadata"]["resourceVersion"])
            if told["type"] != "MODIFIED" or revision <= self._last:
                raise WrongAnswerError(f"after {self._last}: {line[:120]!r}")
            self._last = revision


def _forget(readers: Sequence[EventReader]) -> None:
    for reader in readers:
        reader.latencies.clear()


def _begin_watch(connection: Connection, revision: int) -> None:
    """Ask, and wait for the head."""
    connection.send(_watch_request(revision))
    if not select.select([connection.sock], [], [], _CONNECT_DEADLINE)[0]:
        raise WrongAnswerError("a watch was not begun")
    while not (data := connection.receive()):
        select.select([connection.sock], [], [], _CONNECT_DEADLINE)
    if status_of(data) != 200:
        raise WrongAnswerError(f"a watch was refused: {data!r}")
    _KEPT.append(connection)


_KEPT: list[Connection] = []
"""Open until the process ends."""


def _stalled_watcher(spec: Spec, revision: int) -> socket.socket:
    """A watcher whose transport is full after a few events: small segments keep the kernel at the
    other end from setting megabytes aside for it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SMALL_SEGMENT)
    sock.connect(("127.0.0.1", spec.port))
    tls = client_tls(spec.authority)
    assert tls is not None
    secure = tls.wrap_socket(sock, server_hostname=certificates.SERVER_NAME)
    secure.sendall(_watch_request(revision))
    if status_of(secure.recv(4096)) != 200:
        raise WrongAnswerError("a watch was refused")
    return secure


# --- windows ------------------------------------------------------------------------------------


def _windowed(
    spec: Spec,
    requests: Sequence[bytes],
    readers: Sequence[_Reader],
    *,
    start: Callable[[], object] = lambda: None,
    measured: Callable[[], object] = lambda: None,
    least: float = 0.0,
) -> Numbers:
    """One window over all readers, of ``least`` units at least. ``start`` is called when all were
    answered, ``measured`` when they have warmed up."""
    tls = client_tls(spec.authority)
    streams = Streams()
    asked: list[_Reader] = []
    for reader, request in zip(readers, requests, strict=True):
        streams.add(connect(spec.port, tls), reader, request)
        asked.append(reader)
        if len(asked) == _AT_ONCE or reader is readers[-1]:
            streams.until(lambda: all(one.begun for one in asked))
            asked.clear()
    start()
    streams.read_for(spec.warmup)
    measured()
    units = sum(reader.units for reader in readers)
    before, started = procfs.cpu_seconds(spec.proxy), time.perf_counter()
    streams.read_for(spec.seconds)
    streams.until(lambda: sum(reader.units for reader in readers) - units >= least)
    return {
        "units": sum(reader.units for reader in readers) - units,
        "cpu_seconds": procfs.cpu_seconds(spec.proxy) - before,
        "seconds": time.perf_counter() - started,
    }


def _probed(file: Path, begun: float) -> Numbers:
    """What the loop's probe wrote since ``begun``."""
    lines = [line.split() for line in file.read_text().splitlines()]
    within = [line for line in lines if len(line) > 3 and float(line[0]) >= begun]
    if not within:
        raise WrongAnswerError("the loop's probe wrote nothing")
    lags = [float(word) for line in within for word in line[3:]]
    longest = max(float(line[2]) for line in within)
    return {"callback_ms": longest, "lag_ms": quantile(sorted(lags), 0.999)}
