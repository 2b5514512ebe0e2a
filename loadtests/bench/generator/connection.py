"""A client connection, and the recognition of one whole answer on it."""

from __future__ import annotations

import re
import socket
import ssl

from loadtests.bench import certificates
from loadtests.bench.generator.spec import WrongAnswerError
from loadtests.bench.traffic import Traffic

_READ = 65536
_HEADS_KEPT = 4096
_CHUNKED = -1
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TRANSFER = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_BUSY = (ssl.SSLWantReadError, BlockingIOError)


def client_tls(authority: str, certificate: str = "") -> ssl.SSLContext | None:
    """A verifying context as a Kubernetes client has it, or None for plain HTTP.

    ``certificate`` is a PEM file of certificate and key to present.
    """
    if not authority:
        return None
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["http/1.1"])
    if certificate:
        context.load_cert_chain(certificate)
    return context


def connect(port: int, tls: ssl.SSLContext | None) -> Connection:
    """Connect and shake hands, then switch to non-blocking."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is not None:
        sock = tls.wrap_socket(sock, server_hostname=certificates.SERVER_NAME)
    sock.setblocking(False)
    return Connection(sock)


def body_length(head: bytes) -> int:
    """Length a response head declares, -1 for chunked. Raises ``WrongAnswerError``."""
    if match := _LENGTH.search(head):
        return int(match[1])
    if _TRANSFER.search(head):
        return _CHUNKED
    raise WrongAnswerError(f"no length in {head!r}")


def status_of(head: bytes) -> int:
    return int(head[9:12])


class Connection:
    """``due`` is when its current request should have been sent (open loop), in seconds."""

    __slots__ = ("buffer", "due", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.due = 0.0

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, request: bytes) -> None:
        """Requests are far smaller than an empty socket buffer: a short write is a failure."""
        if self.sock.send(request) != len(request):
            raise WrongAnswerError("request not taken whole")

    def receive(self) -> bytes:
        """What has arrived; b"" when nothing has. Raises ``WrongAnswerError`` at the end."""
        try:
            data = self.sock.recv(_READ)
        except _BUSY:
            return b""
        if not data:
            raise WrongAnswerError("connection closed by the proxy")
        # What TLS has decrypted already is invisible to epoll.
        while isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            data += self.sock.recv(_READ)
        return data

    def close(self) -> None:
        self.sock.close()


class Answers:
    """Tells whole, correct answers from the rest.

    Heads repeat, so what a head says is kept by its bytes: one lookup instead of a parse.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._status = traffic.status
        self._body = traffic.body
        self._lengths: dict[bytes, int] = {}

    def complete(self, connection: Connection, data: bytes) -> bool:
        """Whether ``data`` completes the answer. Raises ``WrongAnswerError`` at a wrong one."""
        if connection.buffer:
            data = connection.buffer + data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or not self._whole(data, end):
            connection.buffer = data
            return False
        connection.buffer = b""
        if self._body is not None and not data.endswith(self._body):
            raise WrongAnswerError(f"wrong body after {data[:end]!r}")
        return True

    def _whole(self, data: bytes, end: int) -> bool:
        head = data[:end]
        length = self._lengths.get(head)
        if length is None:
            length = self._learn(head)
        if length == _CHUNKED:
            return data.endswith(b"0\r\n\r\n")
        if len(data) > end + length:
            raise WrongAnswerError("bytes after the answer")
        return len(data) == end + length

    def _learn(self, head: bytes) -> int:
        if status_of(head) != self._status:
            raise WrongAnswerError(f"status {status_of(head)}, not {self._status}: {head!r}")
        if len(self._lengths) >= _HEADS_KEPT:
            self._lengths.clear()
        length = self._lengths[head] = body_length(head)
        return length
