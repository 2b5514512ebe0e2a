"""Closed-loop clients on kept-alive TLS connections that ignore Retry-After.

Run as ``python -m tests.e2e.hammer PORT AUTHORITY GROUPS``, GROUPS being JSON of ``Group`` fields.
Prints ``ready`` when every connection has had an answer; at the end of standard input prints
one JSON object, per group the ``Tally`` of its answers, and ends. A process of its own, so that
its load does not delay what the test measures; epoll by hand, so that it can outpace the guard.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
import time
from dataclasses import asdict, dataclass, field

_READ = 65_536
_BUSY = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True, slots=True)
class Group:
    """Connections that all send the same request."""

    name: str
    connections: int
    agent: str
    token: str
    target: str = "/api/v1/namespaces/default/pods/web-0"

    @property
    def request(self) -> bytes:
        return (
            f"GET {self.target} HTTP/1.1\r\nHost: kubernetes\r\nUser-Agent: {self.agent}\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n"
        ).encode()


@dataclass(slots=True)
class Tally:
    """Answers by status code, and when the last request that got this code was sent.

    Seconds of CLOCK_MONOTONIC, which all processes of a machine share. ``broken`` counts
    connections that ended before their answer.
    """

    answers: dict[int, int] = field(default_factory=dict)
    last_sent: dict[int, float] = field(default_factory=dict)
    broken: int = 0

    def add(self, code: int, sent: float) -> None:
        self.answers[code] = self.answers.get(code, 0) + 1
        self.last_sent[code] = max(sent, self.last_sent.get(code, 0.0))


class Client:
    """One connection with one request under way; lengths are always declared."""

    __slots__ = ("_buffer", "_request", "_sent", "_sock", "answered", "tally")

    def __init__(self, sock: ssl.SSLSocket, request: bytes, tally: Tally) -> None:
        self._sock = sock
        self._request = request
        self._buffer = b""
        self._sent = 0.0
        self.tally = tally
        self.answered = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self) -> None:
        """Far smaller than an empty socket buffer, so it is taken whole."""
        self._sent = time.monotonic()
        self._sock.send(self._request)

    def receive(self) -> bool:
        """Takes what arrived and sends the next request after an answer; false at the end."""
        try:
            data = self._sock.recv(_READ)
            while self._sock.pending():
                data += self._sock.recv(_READ)
        except _BUSY:
            return True
        except OSError:
            data = b""
        if not data:
            self.tally.broken += 1
            return False
        self._buffer += data
        if self._complete():
            self.tally.add(int(self._buffer[9:12]), self._sent)
            self._buffer = b""
            self.answered = True
            self.send()
        return True

    def _complete(self) -> bool:
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        return len(body) >= int(length)


def main(port: int, authority: str, groups: list[Group]) -> None:
    tls = ssl.create_default_context(cafile=authority)
    tallies = {group.name: Tally() for group in groups}
    clients: dict[int, Client] = {}
    epoll = select.epoll()
    for group in groups:
        for _ in range(group.connections):
            sock = tls.wrap_socket(
                socket.create_connection(("127.0.0.1", port), timeout=30),
                server_hostname="kubernetes.default.svc",
            )
            sock.setblocking(False)
            client = Client(sock, group.request, tallies[group.name])
            clients[client.fileno()] = client
            epoll.register(client.fileno(), select.EPOLLIN)
    for client in clients.values():
        client.send()
    waiting = set(clients)
    epoll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor == sys.stdin.fileno():
                print(json.dumps({name: asdict(tally) for name, tally in tallies.items()}))  # noqa: T201 - its result
                return
            if not clients[descriptor].receive():
                epoll.unregister(descriptor)
            if waiting and clients[descriptor].answered:
                waiting.discard(descriptor)
                if not waiting:
                    print("ready", flush=True)  # noqa: T201 - what the test waits for


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], [Group(**given) for given in json.loads(sys.argv[3])])
