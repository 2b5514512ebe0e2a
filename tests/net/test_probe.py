"""The prober tells a server that answers from one that does not, and notices changes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from apiguard.errors import StartupError
from apiguard.runtime import probe
from apiguard.runtime.drivers import ApiClient
from apiguard.runtime.probe import Prober, Server
from apiguard.runtime.sockets import open_listeners, split_address
from apiguard.runtime.tls import plain_context
from apiguard.upstream.health import FALL, RISE
from apiguard.upstream.readyz import Condition
from tests.conftest import Certificates

READY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ETCD = b"[-]etcd failed: reason withheld\nreadyz check failed\n"
NO_STORAGE = b"HTTP/1.1 500 X\r\nContent-Length: %d\r\n\r\n%b" % (len(ETCD), ETCD)
ELSEWHERE = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Answering:
    """Answers every request with ``answer``, b"" for silence; ``heads`` are the requests."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.url = ""

    @contextlib.asynccontextmanager
    async def on(self, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer:
                writer.write(self.answer)
            await reader.read()
        writer.close()


@pytest.fixture
async def client() -> AsyncIterator[ApiClient]:
    made = ApiClient(plain_context({}), "own-token")
    yield made
    await made.close()


async def test_a_server_that_comes_and_goes_is_noticed_by_rise_and_fall(client: ApiClient) -> None:
    port = _free_port()
    turns: list[bool] = []

    def changed(server: Server, turned: bool) -> None:
        if turned:
            turns.append(server.health.verdict.fit)

    prober = Prober([f"http://127.0.0.1:{port}"], client, changed)
    usable = [prober.any_usable]

    async def rounds(count: int) -> None:
        for _ in range(count):
            await prober.round()
            usable.append(prober.any_usable)

    await rounds(1)
    async with Answering(READY).on(port):
        await rounds(RISE)
    await rounds(FALL)
    assert usable == [False] * 2 + [False] * (RISE - 1) + [True] * FALL + [False]
    assert turns == [False, True, False]
    assert prober.servers[0].health.verdict.condition is Condition.SILENT


async def test_one_usable_server_is_enough(client: ApiClient) -> None:
    alive = Answering(READY)
    async with alive.on():
        prober = Prober([f"http://127.0.0.1:{_free_port()}", alive.url], client)
        await prober.round()
    assert [server.usable for server in prober.servers] == [False, True]
    assert prober.any_usable
    assert prober.fit() == [alive.url]


async def test_a_failing_etcd_check_is_told_and_the_guard_speaks_for_itself(
    client: ApiClient,
) -> None:
    server = Answering(NO_STORAGE)
    async with server.on():
        prober = Prober([server.url], client)
        await prober.round()
    verdict = prober.servers[0].health.verdict
    assert (verdict.fit, verdict.condition) == (False, Condition.STORAGE)
    assert server.heads[0].startswith(b"GET /readyz?verbose HTTP/1.1\r\n")
    assert b"Authorization: Bearer own-token\r\n" in server.heads[0]


async def test_redirects_are_not_followed_and_calls_not_repeated(client: ApiClient) -> None:
    server = Answering(ELSEWHERE)
    async with server.on():
        prober = Prober([server.url], client)
        await prober.round()
    assert prober.servers[0].health.verdict.condition is Condition.NOT_READY
    assert len(server.heads) == 1


async def test_a_server_that_says_nothing_is_silent_and_not_asked_twice(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "DEADLINE_SECONDS", 0.1)
    server = Answering(b"")
    async with server.on():
        prober = Prober([server.url], client)
        await prober.round()
        assert prober.servers[0].health.verdict.condition is Condition.SILENT
        assert len(server.heads) == 1


async def test_a_certificate_that_cannot_be_verified_is_named(
    client: ApiClient, certificates: Certificates
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificates.server)
    server = Answering(READY)
    async with server.on(tls=tls):
        prober = Prober([server.url], client)
        await prober.round()
    assert prober.servers[0].health.verdict.detail.startswith("certificate: ")
    assert server.heads == []


async def test_a_drained_server_is_not_asked_for_the_guards_own_needs(client: ApiClient) -> None:
    servers = Answering(READY), Answering(READY)
    async with servers[0].on(), servers[1].on():
        prober = Prober([server.url for server in servers], client)
        await prober.round()
        prober.servers[0].drained = True
        assert prober.fit() == [servers[1].url]
        assert prober.any_usable


def test_several_listeners_share_one_port_and_nobody_else_gets_it() -> None:
    listeners = open_listeners("127.0.0.1:0", 3, "listen.address")
    try:
        ports = {sock.getsockname()[1] for sock in listeners}
        assert len(ports) == 1
        with pytest.raises(StartupError, match="already in use"):
            open_listeners(f"127.0.0.1:{ports.pop()}", 3, "listen.address")
    finally:
        for sock in listeners:
            sock.close()


@pytest.mark.parametrize(
    ("address", "split"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0))],
)
def test_addresses_are_split_at_the_port(address: str, split: tuple[str, int]) -> None:
    assert split_address(address, "field") == split


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:", "127.0.0.1:65536", "a:b", ":6443"])
def test_what_is_no_address_names_the_field(address: str) -> None:
    with pytest.raises(StartupError, match=r"listen\.address"):
        split_address(address, "listen.address")
