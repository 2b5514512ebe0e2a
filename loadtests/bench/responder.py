"""The upstream of every measurement: fixed answers from one epoll loop.

Run as ``python -m loadtests.bench.responder PLAIN_PORT TLS_PORT CERT KEY CA EVENTS_PER_SECOND``.

A LIST path answers 40 MB, ``watch=1`` opens a stream of 4 KB events, ``SEEN_PATH`` tells what
arrived, everything else is a 2 KB object. Sockets are driven by hand rather than through asyncio:
with ``ssl.SSLSocket`` an answer costs about 10 µs over TLS, half of what a transport on memory BIOs
needs, and what upstream does not use on the shared CPU is left to the generator. Requests are
trusted: they come from proxies that this harness started. Their bodies are read over.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import sys
import time

from cryptography import x509
from cryptography.x509.oid import NameOID

from loadtests.bench import traffic

SEEN_PATH = "/api/v1/namespaces/default/pods/seen"
PRESENTED = "Presented-Certificate"
"""After the head that arrived, ``SEEN_PATH`` names the common name of the client certificate."""

_SEEN = f"GET {SEEN_PATH} ".encode()
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_READ = 65536
_SLICE = 128 * 1024
_SLICES_PER_TURN = 4
_WATCH_BACKLOG = 8 * 1024 * 1024  # a proxy that lags further behind has lost the case
_NEVER = 1e6  # seconds: epoll takes no infinity
_BUSY = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


class Client:
    """One connection from a proxy."""

    __slots__ = ("ended", "input", "output", "ready", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.input = b""
        self.output: list[memoryview] = []
        self.ended = False
        self.ready = not isinstance(sock, ssl.SSLSocket)

    def handshake(self) -> None:
        """Go on with the TLS handshake; ``ready`` when it is through."""
        if isinstance(self.sock, ssl.SSLSocket):
            with contextlib.suppress(*_BUSY):
                self.sock.do_handshake()
                self.ready = True

    def read(self) -> bytes:
        """What has arrived: b"" when there is nothing now; sets ``ended`` at the peer's end."""
        try:
            data = self.sock.recv(_READ)
        except _BUSY:
            return b""
        except OSError:
            data = b""
        if not data:
            self.ended = True
        return data

    def more_is_decrypted(self) -> bool:
        """Whether TLS holds plaintext that epoll knows nothing about."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def presented(self) -> str:
        """Common name of the certificate the proxy presented, "" without one."""
        der = self.sock.getpeercert(True) if isinstance(self.sock, ssl.SSLSocket) else None
        if der is None:
            return ""
        names = x509.load_der_x509_certificate(der).subject
        return str(names.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    def send(self, data: bytes) -> None:
        """Write now what fits, keep the rest."""
        if self.output or len(data) > _SLICE:
            self.output.append(memoryview(data))
            return
        sent = self._write(memoryview(data))
        if sent < len(data) and not self.ended:
            self.output.append(memoryview(data)[sent:])

    def flush(self) -> None:
        """Write some of what was kept; bounded, so that others get their turn."""
        for _ in range(_SLICES_PER_TURN):
            if not self.output:
                return
            first = self.output[0]
            sent = self._write(first[:_SLICE])
            if sent == len(first):
                self.output.pop(0)
            elif sent:
                self.output[0] = first[sent:]
            else:
                return

    def backlog(self) -> int:
        return sum(map(len, self.output))

    def _write(self, data: memoryview) -> int:
        try:
            return self.sock.send(data)
        except _BUSY:
            return 0
        except OSError:
            self.ended = True
            return 0


class Responder:
    """Both listeners, all connections and the clock of watch events."""

    def __init__(self, plain_port: int, tls_port: int, tls: ssl.SSLContext, rate: float) -> None:
        self._epoll = select.epoll()
        self._tls = tls
        self._interval = self._due = 0.0
        self.pace(rate)
        self._clients: dict[int, Client] = {}
        self._watchers: set[int] = set()
        self._listeners: dict[int, tuple[socket.socket, bool]] = {}
        self._object = traffic.object_answer()
        self._list = traffic.list_answer()
        self._watch_head = traffic.watch_head()
        self._event = 0
        for port, secure in ((plain_port, False), (tls_port, True)):
            listener = socket.create_server(("127.0.0.1", port), backlog=4096)
            listener.setblocking(False)
            self._listeners[listener.fileno()] = (listener, secure)
            self._epoll.register(listener.fileno(), select.EPOLLIN)

    def serve(self) -> None:
        """Until killed."""
        while True:
            pause = max(0.0, self._due - time.monotonic()) if self._watchers else -1
            for descriptor, mask in self._epoll.poll(pause):
                if descriptor in self._listeners:
                    self._accept(*self._listeners[descriptor])
                elif descriptor in self._clients:
                    self._handle(descriptor, self._clients[descriptor], mask)
            now = time.monotonic()
            if self._watchers and now >= self._due:
                self.publish()
                self._due += self._interval
            self._due = max(self._due, now)

    def _accept(self, listener: socket.socket, secure: bool) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if secure:
                    sock = self._tls.wrap_socket(
                        sock, server_side=True, do_handshake_on_connect=False
                    )
                self._clients[sock.fileno()] = Client(sock)
                self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _handle(self, descriptor: int, client: Client, mask: int) -> None:
        try:
            if not client.ready:
                client.handshake()
            elif mask & select.EPOLLOUT:
                client.flush()
            if client.ready and mask & ~select.EPOLLOUT:
                self._receive(descriptor, client)
        except OSError:
            client.ended = True
        self._settle(descriptor, client, mask)

    def _receive(self, descriptor: int, client: Client) -> None:
        client.input += client.read()
        while client.more_is_decrypted():
            client.input += client.read()
        while (end := client.input.find(b"\r\n\r\n")) >= 0:
            head = client.input[:end]
            body = int(length[1]) if (length := _LENGTH.search(head)) else 0
            if len(client.input) < end + 4 + body:
                return
            client.input = client.input[end + 4 + body :]
            self.answer(descriptor, client, head)

    def answer(self, descriptor: int, client: Client, head: bytes) -> None:
        """Send what belongs to a request."""
        line = head[: head.find(b"\r\n")]
        if b"watch=1" in line:
            self.watch(descriptor, client)
        elif line.startswith(b"GET /api/v1/pods?"):
            client.send(self._list)
        elif line.startswith(_SEEN):
            client.send(traffic.answer(head + f"\r\n{PRESENTED}: {client.presented()}".encode()))
        else:
            client.send(self._object)

    def watch(self, descriptor: int, client: Client) -> None:
        """From here on the client is sent what happens."""
        client.send(self._watch_head)
        self._watchers.add(descriptor)

    def pace(self, rate: float) -> None:
        """So many events a second from now on; 0 for none."""
        self._interval = 1.0 / rate if rate else _NEVER
        self._due = time.monotonic() + self._interval

    def event(self) -> bytes:
        """What has happened now: one line."""
        self._event += 1
        return traffic.event(self._event)

    def publish(self) -> None:
        """One event to every watcher, as an apiserver does on one change."""
        data = traffic.chunk(self.event())
        for descriptor in tuple(self._watchers):
            client = self._clients[descriptor]
            client.send(data)
            if client.backlog() > _WATCH_BACKLOG:
                client.ended = True
            if client.ended or client.output:
                self._settle(descriptor, client, 0)

    def _settle(self, descriptor: int, client: Client, mask: int) -> None:
        """Forget an ended connection; otherwise wait for what it needs."""
        if client.ended:
            self._watchers.discard(descriptor)
            self._clients.pop(descriptor, None)
            self._epoll.unregister(descriptor)
            client.sock.close()
        elif client.output:
            self._epoll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)
        elif mask & select.EPOLLOUT:
            self._epoll.modify(descriptor, select.EPOLLIN)


def serving_tls(certificate: str, key: str, authority: str) -> ssl.SSLContext:
    """From paths of PEM files."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    # As kube-apiserver does: who has a client certificate may show it.
    tls.load_verify_locations(authority)
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.set_alpn_protocols(["http/1.1"])
    return tls


def main(arguments: list[str]) -> None:
    plain_port, tls_port, certificate, key, authority, rate = arguments
    tls = serving_tls(certificate, key, authority)
    Responder(int(plain_port), int(tls_port), tls, float(rate)).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
