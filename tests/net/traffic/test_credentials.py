"""What upstream is shown: the front proxy's certificate with the guard's word, or neither."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from apiguard.demo.certs import Authority
from apiguard.runtime import files, tls
from apiguard.runtime.identities import renew
from tests.conftest import Certificates

from .client import Client
from .conftest import StartGuard, StartUpstream
from .guard import Guard, client_context
from .upstreams import Connection, Received, ok
from .waiting import eventually

PODS = "/api/v1/pods"
TOKEN = b"Authorization: Bearer alice-token\r\n"


@dataclass
class Shown:
    """Requests as upstream got them, each with the common name of the certificate shown."""

    requests: list[tuple[str, Received]] = field(default_factory=list)

    async def script(self, connection: Connection, received: Received) -> None:
        presented = connection.writer.get_extra_info("peercert")
        self.requests.append((_common_name(presented), received))
        connection.send(ok())


def _common_name(certificate: dict[str, object] | None) -> str:
    if not certificate:
        return ""
    subject = certificate["subject"]
    assert isinstance(subject, tuple)
    return str(dict(pair for part in subject for pair in part)["commonName"])


@pytest.fixture(scope="module")
def proxy_pair(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Signed by the authority upstream asks for."""
    folder = tmp_path_factory.mktemp("front-proxy")
    return _proxy_authority().client("guard-proxy").write(folder, "proxy")


_AUTHORITY: list[Authority] = []


def _proxy_authority() -> Authority:
    if not _AUTHORITY:
        _AUTHORITY.append(Authority("front-proxy-ca"))
    return _AUTHORITY[0]


@pytest.fixture
def asking_tls(certificates: Certificates, tmp_path: Path) -> ssl.SSLContext:
    """Upstream's side: asks for a certificate of the front proxy."""
    authority = tmp_path / "front-proxy-ca.crt"
    authority.write_bytes(_proxy_authority().certificate)
    return tls.server_context(
        str(certificates.server[0]), str(certificates.server[1]), str(authority)
    )


@dataclass
class Stand:
    shown: Shown
    guard: Guard
    certified: ssl.SSLContext


StartStand = Callable[[], Awaitable[Stand]]


@pytest.fixture
async def stand(
    upstream: StartUpstream,
    guard: StartGuard,
    certificates: Certificates,
    asking_tls: ssl.SSLContext,
    proxy_pair: tuple[Path, Path],
) -> Stand:
    shown = Shown()
    server = await upstream(shown.script, tls=asking_tls)
    started = await guard(
        server.url.replace("127.0.0.1", "localhost"),
        certificates=certificates,
        asks_certificates=True,
        authority=certificates,
        front_proxy=proxy_pair,
    )
    return Stand(shown, started, client_context(certificates, own=certificates.client))


def names(received: Received) -> list[str]:
    return sorted(line.partition(b":")[0].decode().lower() for line in received.lines)


async def test_a_certified_caller_is_spoken_for_on_the_front_proxys_certificate(
    stand: Stand,
) -> None:
    client = await Client.open(stand.guard.port, stand.certified)
    assert (await client.ask(PODS, headers=TOKEN)).status == 200
    ((shown, received),) = stand.shown.requests
    assert shown == "guard-proxy"
    assert received.get(b"x-remote-user") == b"alice"
    assert b"authorization" not in b"\n".join(received.lines).lower()
    assert names(received) == [
        "host",
        "x-forwarded-for",
        "x-remote-extra-authentication.kubernetes.io%2fcredential-id",
        "x-remote-group",
        "x-remote-group",
        "x-remote-user",
    ]
    await client.close()


@pytest.mark.parametrize("headers", [TOKEN, b"", b"Authorization: Bearer unknown\r\n"])
async def test_tokens_and_nobody_never_ride_on_that_certificate(
    stand: Stand, headers: bytes
) -> None:
    """Not even right after a certified caller left such a connection idle."""
    certified = await Client.open(stand.guard.port, stand.certified)
    assert (await certified.ask(PODS)).status == 200
    plain = await Client.open(stand.guard.port, stand.guard.client_tls)
    for _ in range(3):
        assert (await plain.ask(PODS, headers=headers)).status == 200
        assert (await certified.ask(PODS)).status == 200
    by_name = [(shown, b"x-remote-user" in b"\n".join(r.lines).lower()) for shown, r in
               stand.shown.requests]  # fmt: skip
    assert by_name == [("guard-proxy", True)] + [("", False), ("guard-proxy", True)] * 3
    await certified.close()
    await plain.close()


def _replace(guard: Guard, content: files.Files, changed: files.Files) -> None:
    """What a worker does when it is told of changed files."""
    now = {**content, **changed}
    renewed = renew(guard.gateway.authenticator, guard.config, now, changed)
    if renewed is not None:
        guard.gateway.set_authenticator(renewed)
    guard.traffic.set_tls(tls.serving_context(now))
    guard.traffic.upstream.set_tls(tls.upstream_contexts(now))


async def test_rotation_under_load_fails_nothing_and_shows_the_new_certificates(
    stand: Stand, certificates: Certificates, tmp_path: Path
) -> None:
    statuses: list[int] = []
    enough = asyncio.Event()  # no cancellation: asyncio loses the socket of a handshake cut so

    async def keep_asking(context: ssl.SSLContext, per_connection: int) -> None:
        while not enough.is_set():
            client = await Client.open(stand.guard.port, context)
            statuses.extend([(await client.ask(PODS)).status for _ in range(per_connection)])
            await client.close()

    assert stand.guard.client_tls is not None
    load = [
        asyncio.create_task(keep_asking(context, count))
        for context in (stand.certified, stand.guard.client_tls)
        for count in (1, 50)
    ]
    await eventually(lambda: len(statuses) > 50)
    second = _proxy_authority().client("second-proxy").write(tmp_path, "second")
    paths = {files.FRONT_PROXY_CERT: second[0], files.FRONT_PROXY_KEY: second[1]}
    changed = {name: files.read_file(str(path), name) for name, path in paths.items()}
    _replace(stand.guard, stand.guard.files, changed)
    seen = len(stand.shown.requests)
    await eventually(
        lambda: any(shown == "second-proxy" for shown, _ in stand.shown.requests[seen:])
    )
    settled = len(stand.shown.requests)
    await eventually(lambda: len(stand.shown.requests) > settled + 100)
    late = {shown for shown, _ in stand.shown.requests[settled + 20 :]}
    assert late <= {"second-proxy", ""}
    assert not any(task.done() for task in load), load
    enough.set()
    await asyncio.gather(*load)
    assert set(statuses) == {200}


async def test_a_change_of_the_client_authority_ends_trust_on_open_connections_and_sessions(
    stand: Stand, certificates: Certificates, tmp_path: Path
) -> None:
    client = await Client.open(stand.guard.port, stand.certified)
    assert (await client.ask(PODS)).status == 200
    _, session, _ = await asyncio.to_thread(_resume, stand, None)
    resumed, session, status = await asyncio.to_thread(_resume, stand, session)
    assert (resumed, status) == (True, 200), "or what follows would prove nothing"
    other = Authority("another client authority")
    changed = {files.CLIENT_CA: files.File("other.crt", other.certificate)}
    _replace(stand.guard, stand.guard.files, changed)
    refused = await client.ask(PODS)
    assert refused.status == 401
    assert b"no longer trusted" in refused.body
    await client.close()
    # The old session's ticket is worthless: a full handshake follows, which the new one refuses.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(_resume, stand, session)
    assert len(stand.shown.requests) == 3
    newcomer = other.client("bob").write(tmp_path, "bob")
    trusted = await Client.open(stand.guard.port, client_context(certificates, own=newcomer))
    assert (await trusted.ask(PODS)).status == 200
    assert stand.shown.requests[-1][1].get(b"x-remote-user") == b"bob"
    await trusted.close()


def _resume(
    stand: Stand, session: ssl.SSLSession | None
) -> tuple[bool, ssl.SSLSession | None, int]:
    """One request on a connection that offers ``session``: whether it was resumed, the session it
    could be resumed by, and the status. Blocks: asyncio's TLS cannot offer a session."""
    address = ("127.0.0.1", stand.guard.port)
    with (
        socket.create_connection(address, timeout=10) as raw,
        stand.certified.wrap_socket(raw, server_hostname="localhost", session=session) as tls_,
    ):
        tls_.sendall(f"GET {PODS} HTTP/1.1\r\nHost: guard\r\n\r\n".encode())
        answer = tls_.recv(65_536)
        if not answer:
            raise ConnectionError("closed without an answer")
        return bool(tls_.session_reused), tls_.session, int(answer.split(b" ")[1])


async def test_an_expired_certificate_is_401_on_a_connection_that_was_fine(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await Client.open(stand.guard.port, stand.certified)
    assert (await client.ask(PODS)).status == 200
    monkeypatch.setattr(stand.guard.gateway, "_wall", lambda: time.time() + 10 * 366 * 86_400)
    monkeypatch.setattr(stand.guard.traffic, "clock", lambda: time.monotonic() + 60)
    client.send(b"GET /api/v1/pods HTTP/1.1\r\nHost: guard\r\nUser-Agent: test/2\r\n\r\n")
    refused = await client.response()
    assert refused.status == 401
    assert b"expired" in refused.body
    await client.close()
