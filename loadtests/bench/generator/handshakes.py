"""Connections that live for one request: what a full TLS handshake costs.

Sessions are never resumed (each connection starts without one). The one request proves that the
handshake went through on the proxy's side too; its cost stays in the figure, for all alike.
"""

from __future__ import annotations

import select
import socket
import ssl
import time

from loadtests.bench import certificates, procfs
from loadtests.bench.generator.connection import Answers, Connection, client_tls
from loadtests.bench.generator.spec import Numbers, Spec, WrongAnswerError
from loadtests.bench.traffic import TRAFFIC

_SILENCE = 5.0
_ABORTIVE = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: on, 0 s


def run(spec: Spec) -> Numbers:
    """``units`` connections that were opened, used once and closed."""
    traffic = TRAFFIC[spec.traffic]()
    tls = client_tls(spec.authority)
    if tls is None:
        raise WrongAnswerError("handshakes need TLS")
    loop = Handshakes(spec.port, tls, Answers(traffic), traffic.requests[0])
    for _ in range(spec.connections):
        loop.open_one()
    loop.go_on(spec.warmup)
    before, started = procfs.cpu_seconds(spec.proxy), time.perf_counter()
    units = loop.go_on(spec.seconds)
    return {
        "units": units,
        "cpu_seconds": procfs.cpu_seconds(spec.proxy) - before,
        "seconds": time.perf_counter() - started,
    }


class Handshakes:
    """A fixed number of connections on their way; each one that is done is replaced."""

    def __init__(self, port: int, tls: ssl.SSLContext, answers: Answers, request: bytes) -> None:
        self._address = ("127.0.0.1", port)
        self._tls = tls
        self._answers = answers
        self._request = request
        self._epoll = select.epoll()
        self._shaking: dict[int, ssl.SSLSocket] = {}
        self._asking: dict[int, Connection] = {}

    def open_one(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Ends without TIME_WAIT: thousands of them would use up the ephemeral ports.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE)
        sock.connect(self._address)
        sock.setblocking(False)
        secure = self._tls.wrap_socket(
            sock, do_handshake_on_connect=False, server_hostname=certificates.SERVER_NAME
        )
        self._epoll.register(secure.fileno(), select.EPOLLIN)
        self._shaking[secure.fileno()] = secure
        self._shake(secure)

    def go_on(self, seconds: float) -> int:
        """Connections completed within the next ``seconds``."""
        units = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            ready = self._epoll.poll(_SILENCE)
            if not ready:
                raise WrongAnswerError(f"no handshake went on for {_SILENCE:.0f} s")
            for descriptor, _ in ready:
                if descriptor in self._shaking:
                    self._shake(self._shaking[descriptor])
                elif self._answered(self._asking[descriptor]):
                    units += 1
                    self.open_one()
        return units

    def _shake(self, secure: ssl.SSLSocket) -> None:
        try:
            secure.do_handshake()
        except ssl.SSLWantReadError:
            return
        if secure.session_reused:
            raise WrongAnswerError("a session was resumed")
        del self._shaking[secure.fileno()]
        connection = self._asking[secure.fileno()] = Connection(secure)
        connection.send(self._request)

    def _answered(self, connection: Connection) -> bool:
        data = connection.receive()
        if not data or not self._answers.complete(connection, data):
            return False
        descriptor = connection.fileno()
        self._epoll.unregister(descriptor)
        del self._asking[descriptor]
        connection.close()
        return True
