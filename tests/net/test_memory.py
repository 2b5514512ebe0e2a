"""A worker stays below its memory limit, whoever does not read, and serves leases throughout."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import socketserver
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from apiguard.gateway.pressure import Level
from apiguard.runtime.supervisor import Supervisor
from apiguard.telemetry import bounds
from tests.conftest import Certificates
from tests.net.guarded import eventually, guarded

MIB = 1 << 20
LIMIT = 120 * MIB
STALLING = 200
"""Clients that do not read: twice what fits below the limit, at some 0.6 MiB each."""

MANY = 10
"""Clients cut: by then others have come in their places."""

LATE_SECONDS = 5.0
"""client-go gives up renewing a lease after ten."""

LIST_BYTES = 16 * MIB
"""More than guard and kernel hold together for one client."""

LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1"
ESTABLISHED = 1  # of linux/tcp_states.h


class _Lists(socketserver.StreamRequestHandler):
    """Answers leases with little and everything else with a large list."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                while self.rfile.readline() not in (b"\r\n", b""):
                    pass
                small = b"/leases/" in line
                length = 2 if small else LIST_BYTES
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
                self.wfile.write(b"{}" if small else bytes(LIST_BYTES))


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1_024


@contextlib.contextmanager
def large_lists() -> Iterator[str]:
    """URL of an API server whose lists are large; with threads, so that they come as fast as the
    guard takes them."""
    with _Server(("127.0.0.1", 0), _Lists) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield "http://127.0.0.1:%d" % server.server_address[1]  # noqa: UP031  the tests' way
        finally:
            server.shutdown()
            thread.join()


class Client:
    """One TLS connection of a blocking client."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext) -> None:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.settimeout(30)
        raw.connect(address)
        self._socket = tls.wrap_socket(raw, server_hostname="127.0.0.1")

    def ask(self, target: str, agent: str) -> int:
        """The status; of a long answer only the beginning is read."""
        head = f"GET {target} HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n"
        self._socket.sendall(head.encode())
        answer = self._socket.recv(4_096)
        while answer and len(answer) < 4_096 and not answer.endswith((b"}", b"}\n")):
            answer += self._socket.recv(4_096)
        return int(answer.split()[1])

    @property
    def connected(self) -> bool:
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return info[0] == ESTABLISHED

    def close(self) -> None:
        self._socket.close()


class Crowd(threading.Thread):
    """Keeps ``STALLING`` clients that ask for a list and do not read it; who is cut or refused
    returns at once, as impatient ones do."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self._address, self._tls = address, tls
        self._ending = threading.Event()

    def run(self) -> None:
        clients: list[Client] = []
        while not self._ending.wait(0.01):
            for client in [one for one in clients if not one.connected]:
                clients.remove(client)
                client.close()
                self.seen["cut"] += 1
            if len(clients) < STALLING:
                with contextlib.suppress(OSError, IndexError):
                    self._add(clients)
        for client in clients:
            client.close()

    def _add(self, clients: list[Client]) -> None:
        client = Client(self._address, self._tls)
        status = client.ask("/api/v1/pods", "stalling/1")
        self.seen[str(status)] += 1
        if status == 200:
            clients.append(client)
        else:
            client.close()

    def end(self) -> None:
        self._ending.set()
        self.join()


class Kubelet(threading.Thread):
    """Renews its lease ten times a second, now and then on a new connection."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext) -> None:
        super().__init__()
        self.answers: Counter[str] = Counter()
        self.slowest = 0.0
        self._address, self._tls = address, tls
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.is_set():
            with contextlib.closing(Client(self._address, self._tls)) as client:
                for _ in range(10):
                    begun = time.monotonic()
                    try:
                        answer = str(client.ask(LEASE, "kubelet/1"))
                    except (OSError, IndexError) as error:
                        answer = repr(error)
                    self.answers[answer] += 1
                    self.slowest = max(self.slowest, time.monotonic() - begun)
                    if self._ending.wait(0.1):
                        return

    def end(self) -> None:
        self._ending.set()
        self.join()


def highest(supervisor: Supervisor) -> int:
    """Bytes the worker ever had resident, as the kernel saw it."""
    worker = supervisor.slots[0].worker
    assert worker is not None
    status = Path(f"/proc/{worker.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


async def test_clients_that_do_not_read_cost_themselves_and_nobody_else(
    tmp_path: Path, certificates: Certificates
) -> None:
    client_tls = ssl.create_default_context(cafile=str(certificates.authority))
    settings: dict[str, object] = {
        "listen": {
            "address": "127.0.0.1:0",
            "tls": {
                "certFile": str(certificates.server[0]),
                "keyFile": str(certificates.server[1]),
            },
        },
        "bounds": {"drainSeconds": 1, "memoryBytes": LIMIT},
    }
    with large_lists() as url:
        settings["upstream"] = {"servers": [url]}
        async with guarded(tmp_path, settings=settings) as supervisor:
            slot = supervisor.slots[0]
            crowd = Crowd(supervisor.address, client_tls)
            kubelet = Kubelet(supervisor.address, client_tls)
            crowd.start()
            kubelet.start()
            hits = supervisor.totals.bounds
            try:
                await eventually(lambda: hits[bounds.MEMORY_CLIENTS] >= MANY, 30.0)
            finally:
                await asyncio.to_thread(crowd.end)
                await asyncio.to_thread(kubelet.end)
            assert hits[bounds.MEMORY_READS]
            assert crowd.seen["429"]
            assert highest(supervisor) < LIMIT
            assert set(kubelet.answers) == {"200"}
            assert kubelet.slowest < LATE_SECONDS
            await eventually(lambda: slot.mirror.memory_level < Level.TIGHT)
            assert supervisor.restarts == {"died": 0, "stalled": 0}
