"""Closed-loop clients on kept-alive TLS connections that ignore Retry-After.

Run as ``python -m tests.e2e.hammer PORT AUTHORITY GROUPS``, GROUPS being JSON of ``Group`` fields.
Prints ``ready`` when every connection has had an answer. A line on standard input asks for the
``Tally`` of each group since the last one, as one JSON object; the end of standard input for the
last of them. A process of its own, so that its load does not delay what the test measures; epoll
by hand, so that it can outpace the guard.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_READ = 65_536
_BUSY = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_SECONDS_KEPT = 100_000
_READY = "ready\n"
_NOBODY = -1
_CHUNKED = -1
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Group:
    """Connections that all send the same request.

    ``pause`` seconds lie between two requests of a connection, unless the answer takes longer.
    ``source`` is the loopback address they come from. ``agents`` above 1 gives every request the
    next of so many user-agents: ``agent`` with a number after it; ``tokens`` likewise.
    """

    name: str
    connections: int
    agent: str
    token: str
    target: str = "/api/v1/namespaces/default/pods/web-0"
    method: str = "GET"
    body: str = ""
    content_type: str = ""
    pause: float = 0.0
    source: str = "127.0.0.1"
    agents: int = 1
    tokens: int = 1

    def requests(self) -> Iterator[bytes]:
        """Without end."""
        if self.agents == self.tokens == 1:
            return itertools.repeat(self._request(self.agent, self.token))
        return (
            self._request(f"{self.agent}{n % self.agents}", f"{self.token}{n % self.tokens}")
            for n in itertools.count()
        )

    def _request(self, agent: str, token: str) -> bytes:
        length = f"Content-Length: {len(self.body)}\r\n" if self.body else ""
        if self.content_type:
            length += f"Content-Type: {self.content_type}\r\n"
        return (
            f"{self.method} {self.target} HTTP/1.1\r\nHost: kubernetes\r\nUser-Agent: {agent}\r\n"
            f"Authorization: Bearer {token}\r\n{length}\r\n{self.body}"
        ).encode()


@dataclass(slots=True)
class Tally:
    """Answers by status code, and when the last request that got this code was sent.

    Seconds of CLOCK_MONOTONIC, which all processes of a machine share. ``broken`` counts
    connections that ended before their answer; ``seconds`` are the durations of some 200s;
    ``oldest`` is the age of the oldest request without an answer.
    """

    answers: dict[int, int] = field(default_factory=dict)
    last_sent: dict[int, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    broken: int = 0
    sent: int = 0
    oldest: float = 0.0

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Tally:
        """From JSON, in which every key is a text."""
        for name in ("answers", "last_sent"):
            fields[name] = {int(code): value for code, value in fields[name].items()}
        return cls(**fields)

    def add(self, code: int, sent: float, now: float) -> None:
        self.answers[code] = self.answers.get(code, 0) + 1
        self.last_sent[code] = max(sent, self.last_sent.get(code, 0.0))
        if code == 200 and len(self.seconds) < _SECONDS_KEPT:
            self.seconds.append(now - sent)


Tallies = dict[str, Tally]
"""By the names of their groups."""


class Client:
    """One connection with at most one request under way; of bodies only the end is looked at."""

    __slots__ = (
        "_code",
        "_head",
        "_left",
        "_requests",
        "_sock",
        "_tail",
        "answered",
        "group",
        "pause",
        "sent",
        "waits",
    )

    def __init__(self, sock: ssl.SSLSocket, group: Group, requests: Iterator[bytes]) -> None:
        self._sock = sock
        self._requests = requests
        self._head = b""
        self._code = 0  # of the answer whose body is being received
        self._left = 0  # of a declared body; what comes in chunks has _CHUNKED
        self._tail = b""
        self.group = group.name
        self.pause = group.pause
        self.sent = 0.0
        self.waits = False
        self.answered = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, tally: Tally) -> None:
        """Far smaller than an empty socket buffer, so it is taken whole."""
        self.sent = time.monotonic()
        self.waits = True
        tally.sent += 1
        self._sock.send(next(self._requests))

    def receive(self) -> int:
        """Takes what arrived: the status code of a whole answer, 0 for none, -1 at the end."""
        try:
            data = self._sock.recv(_READ)
            while self._sock.pending():
                data += self._sock.recv(_READ)
        except _BUSY:
            return 0
        except OSError:
            data = b""
        if not data:
            self.waits = False
            return _NOBODY
        if not self._complete(data if self._code else self._begin(data)):
            return 0
        code, self._code = self._code, 0
        self.answered = True
        self.waits = False
        return code

    def _begin(self, data: bytes) -> bytes:
        """Takes the head once it is whole; returns what follows it."""
        self._head += data
        head, found, body = self._head.partition(b"\r\n\r\n")
        if not found:
            return b""
        self._head = b""
        self._tail = b"\r\n"
        self._code = int(head[9:12])
        fields = head.lower()
        chunked = b"\r\ntransfer-encoding: chunked" in fields
        length = fields.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        self._left = _CHUNKED if chunked else int(length)
        return body

    def _complete(self, data: bytes) -> bool:
        if not self._code:
            return False
        if self._left == _CHUNKED:
            self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
            return self._tail == _LAST_CHUNK
        self._left -= len(data)
        return self._left <= 0


class Hammer:
    """All clients of one process, one epoll, and one heap of those that pause."""

    def __init__(self, port: int, tls: ssl.SSLContext, groups: list[Group]) -> None:
        self._tallies = {group.name: Tally() for group in groups}
        self._clients: dict[int, Client] = {}
        self._due: list[tuple[float, int]] = []
        self._epoll = select.epoll()
        for group in groups:
            requests = group.requests()
            for _ in range(group.connections):
                self._add(Client(_connect(port, tls, group.source), group, requests))
        self._silent = set(self._clients)
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)

    def _add(self, client: Client) -> None:
        self._clients[client.fileno()] = client
        self._epoll.register(client.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Until standard input ends."""
        begun = time.monotonic()
        for number, client in enumerate(self._clients.values()):
            # Those that pause begin spread over their pause, as clients of their own would.
            later = client.pause * number / len(self._clients)
            heapq.heappush(self._due, (begun + later, client.fileno()))
        while True:
            self._send_due()
            pause = max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1
            for descriptor, _ in self._epoll.poll(pause):
                if descriptor == sys.stdin.fileno():
                    asked = os.read(descriptor, _READ)
                    self._tell()
                    if not asked:
                        return
                else:
                    self._receive(self._clients[descriptor])

    def _send_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            client = self._clients[heapq.heappop(self._due)[1]]
            client.send(self._tallies[client.group])

    def _receive(self, client: Client) -> None:
        tally = self._tallies[client.group]
        code = client.receive()
        if code == _NOBODY:
            tally.broken += 1
            self._epoll.unregister(client.fileno())
        elif code:
            now = time.monotonic()
            tally.add(code, client.sent, now)
            due = client.sent + client.pause
            if due <= now:
                client.send(tally)
            else:
                heapq.heappush(self._due, (due, client.fileno()))
        if self._silent and (client.answered or code == _NOBODY):
            self._silent.discard(client.fileno())
            if not self._silent:
                print("ready", flush=True)  # noqa: T201 - what the test waits for

    def _tell(self) -> None:
        now = time.monotonic()
        for client in self._clients.values():
            if client.waits:
                tally = self._tallies[client.group]
                tally.oldest = max(tally.oldest, now - client.sent)
        told = {name: asdict(tally) for name, tally in self._tallies.items()}
        print(json.dumps(told), flush=True)  # noqa: T201 - its result
        for name in self._tallies:
            self._tallies[name] = Tally()


def _connect(port: int, tls: ssl.SSLContext, source: str) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(source, 0))
    secure = tls.wrap_socket(sock, server_hostname="kubernetes.default.svc")
    secure.setblocking(False)
    return secure


class HammerProcess:
    """A hammer as a process of its own; ``niceness`` above 0 lets others have the CPU first."""

    def __init__(
        self, port: int, authority: Path, groups: Sequence[Group], *, niceness: int = 0
    ) -> None:
        self._process = subprocess.Popen(
            [
                *("nice", f"-n{niceness}", sys.executable, "-m", "tests.e2e.hammer", str(port)),
                *(str(authority), json.dumps([asdict(group) for group in groups])),
            ],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> None:
        """Until every connection has had an answer."""
        line = self._line()
        assert line == _READY, f"the hammer said {line!r}"

    def tally(self) -> Tallies:
        """Per group what happened since the last look."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._line()
        return _tallies(self._line() if line == _READY else line)

    def end(self) -> Tallies:
        """As ``tally``, and the clients are gone."""
        out, _ = self._process.communicate(timeout=30)
        return _tallies(out.removeprefix(_READY))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _tallies(text: str) -> Tallies:
    return {name: Tally.read(fields) for name, fields in json.loads(text).items()}


def main(port: int, authority: str, groups: list[Group]) -> None:
    Hammer(port, ssl.create_default_context(cafile=authority), groups).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], [Group(**given) for given in json.loads(sys.argv[3])])
