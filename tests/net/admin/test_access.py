"""Who is let in by which door, and what each role may do."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import socket
import ssl
import stat
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from apiguard.admin.routes import ROUTES, Route
from apiguard.admin.unixsocket import open_socket
from apiguard.demo.certs import Authority, Pair
from apiguard.errors import StartupError
from apiguard.policy.adminconfig import (
    AdminConfig,
    CertificateConfig,
    Role,
    SocketConfig,
    TokenConfig,
)
from apiguard.policy.tlsconfig import TlsConfig
from tests.net.admin.doors import (
    TOKENS,
    Admin,
    Door,
    bearer,
    serving,
    through_socket,
    token_configs,
)

JSON = {"Content-Type": "application/json"}

NEEDS = {
    "GET /livez": None,
    "GET /readyz": None,
    "GET /metrics": Role.METRICS,
    "GET /openapi.json": Role.METRICS,
    "GET /v1/whoami": Role.METRICS,
    "POST /v1/upstreams/{server}/drain": Role.OPERATOR,
    "POST /v1/upstreams/{server}/undrain": Role.OPERATOR,
    "POST /v1/explain": Role.VIEWER,
    "PUT /v1/enforcement": Role.OPERATOR,
    "PUT /v1/policy": Role.ADMIN,
    "POST /v1/policy/rollback": Role.ADMIN,
    "POST /v1/overrides": Role.OPERATOR,
    "PATCH /v1/overrides/{id}": Role.OPERATOR,
    "DELETE /v1/overrides/{id}": Role.OPERATOR,
}
"""Written down a second time, so that a slip in the table is noticed; every other GET is for
viewers."""


def _needed(route: Route) -> Role | None:
    name = f"{route.method} {route.path}"
    if route.method == "GET":
        return NEEDS.get(name, Role.VIEWER)
    return NEEDS[name]


# -- roles


async def test_every_role_may_do_what_its_route_says_and_no_more(admin: Admin) -> None:
    """Every route with every role; what is let in may then fail for other reasons."""
    for route in ROUTES:
        target = route.path.replace("{server}", "99").replace("{id}", "none")
        target = target.replace("{generation}", "99").replace("{resource}", "pods")
        for role in Role:
            answer = await admin.door.holding(role).ask(route.method, target, JSON, "no json")
            needed = _needed(route)
            if needed is None or role.includes(needed):
                assert answer.code not in (401, 403), (route, role, answer)
            else:
                assert answer.code == 403, (route, role, answer)
                assert f"needs the role {needed.value}" in answer.message
                assert f"{role.value} has the role {role.value}" in answer.message


async def test_every_route_but_health_refuses_strangers(admin: Admin) -> None:
    for route in ROUTES:
        target = route.path.replace("{", "").replace("}", "")
        answer = await admin.door.ask(route.method, target, JSON, "{}")
        assert (answer.code == 401) == (route.role is not None), route


async def test_a_dry_run_needs_only_a_viewer(admin: Admin) -> None:
    viewer = admin.door.holding(Role.VIEWER)
    yaml = {"Content-Type": "application/yaml"}
    text = "apiVersion: apiguard.io/v1alpha1\nkind: ThrottlePolicy\nrules: []\n"
    text += "default: {limits: [{requestsPerSecond: 1}]}\n"
    assert (await viewer.ask("PUT", "/v1/policy?dryRun=All", yaml, text)).code == 200
    assert (await viewer.ask("PUT", "/v1/policy", yaml, text)).code == 403
    # Only the one value that makes it a dry run, given once, lowers what is needed.
    for query in ("dryRun=all", "dryRun=", "dryRun=None", "dryrun=All"):
        assert (await viewer.ask("PUT", f"/v1/policy?{query}", yaml, text)).code == 403, query
    twice = await viewer.ask("PUT", "/v1/policy?dryRun=All&dryRun=None", yaml, text)
    assert twice.code == 400
    metrics = admin.door.holding(Role.METRICS)
    assert (await metrics.ask("PUT", "/v1/policy?dryRun=All", yaml, text)).code == 403


async def test_a_head_needs_what_its_get_needs(admin: Admin) -> None:
    assert (await admin.door.holding(Role.METRICS).ask("HEAD", "/metrics")).code in (200, 405)
    assert (await admin.door.holding(Role.METRICS).ask("HEAD", "/v1/status")).code in (403, 405)


@pytest.mark.parametrize("target", ["/v1/status?verbose=1", "/v1/flows?rulez=x", "/metrics?name=a"])
async def test_an_unknown_query_parameter_is_named_with_what_is_accepted(
    admin: Admin, target: str
) -> None:
    answer = await admin.door.holding(Role.ADMIN).ask("GET", target)
    assert answer.code == 400
    assert "accepted" in answer.message


async def test_whoami_says_who_and_how(admin: Admin) -> None:
    answer = await admin.door.holding(Role.OPERATOR).ask("GET", "/v1/whoami")
    assert answer.json == {
        "name": "operator",
        "role": "operator",
        "source": "127.0.0.1",
        "how": "token",
    }


# -- tokens


async def test_four_thousand_wrong_tokens_are_refused_and_slow_nobody_down(
    admin: Admin,
) -> None:
    guesses = [secrets.token_urlsafe(24) for _ in range(3_980)]
    good = TOKENS[Role.ADMIN]
    guesses += ["", " ", good[:-1], good + "x", good.upper(), f"{good} x", "é", "x" * 4_000] * 3
    waits: list[float] = []

    async def guess(part: list[str]) -> set[int]:
        return {(await admin.door.ask("GET", "/v1/status", bearer(t))).code for t in part}

    async def work() -> None:
        for _ in range(30):
            begun = time.monotonic()
            answer = await admin.door.holding(Role.METRICS).ask("GET", "/v1/whoami")
            waits.append(time.monotonic() - begun)
            assert answer.code == 200
            await asyncio.sleep(0)

    parts = [guesses[n::8] for n in range(8)]
    *codes, _ = await asyncio.gather(*(guess(part) for part in parts), work())
    assert codes == [{401}] * 8
    assert statistics.median(waits) < 0.5


async def test_a_changed_token_counts_at_once_and_the_old_one_no_more(
    admin: Admin, tmp_path: Path
) -> None:
    (tmp_path / "viewer").write_text("another\n")
    assert (await admin.door.holding(Role.VIEWER).ask("GET", "/v1/status")).code == 401
    assert (await admin.door.ask("GET", "/v1/status", bearer("another"))).code == 200


async def test_an_emptied_or_removed_token_file_locks_nobody_out_and_is_told(
    admin: Admin, tmp_path: Path
) -> None:
    (tmp_path / "viewer").write_text("")
    (tmp_path / "operator").unlink()
    assert (await admin.door.holding(Role.OPERATOR).ask("GET", "/v1/status")).code == 200
    answer = await admin.door.holding(Role.VIEWER).ask("GET", "/v1/status")
    assert answer.json["brokenFiles"] == {
        "admin.tokens[viewer]": "holds no token",
        "admin.tokens[operator]": "No such file or directory",
    }


async def test_of_two_files_with_one_token_the_lesser_role_counts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("same")
    tokens = tuple(
        TokenConfig(name, role, str(tmp_path / name))
        for name, role in (("a", Role.ADMIN), ("b", Role.VIEWER))
    )
    async with serving(tmp_path, AdminConfig("127.0.0.1:0", tokens=tokens)) as admin:
        answer = await admin.door.ask("GET", "/v1/whoami", bearer("same"))
        assert (answer.json["name"], answer.json["role"]) == ("b", "viewer")


# -- hosts and origins


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7444",
        "127.0.0.1.nip.example",
        "localhost.evil.example",
        "169.254.169.254",
        "0.0.0.0",
        "[::2]",
        "ops.example.evil",
        "ops.example@evil",
    ],
)
async def test_a_rebound_name_is_misdirected_whatever_the_token(admin: Admin, host: str) -> None:
    for method, target in (("GET", "/v1/status"), ("PUT", "/v1/policy"), ("GET", "/nowhere")):
        answer = await admin.door.holding(Role.ADMIN).ask(method, target, {"Host": host, **JSON})
        assert answer.code == 421


@pytest.mark.parametrize("host", ["ops.example", "OPS.example:1", "127.0.0.1", "localhost:9"])
async def test_configured_and_loopback_names_are_known(admin: Admin, host: str) -> None:
    answer = await admin.door.holding(Role.VIEWER).ask("GET", "/v1/status", {"Host": host})
    assert answer.code == 200


@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[x"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_write_from_another_origin_is_refused(
    admin: Admin, foreign: dict[str, str]
) -> None:
    for method, target in (("PUT", "/v1/enforcement"), ("DELETE", "/v1/overrides/a")):
        answer = await admin.door.holding(Role.ADMIN).ask(method, target, {**foreign, **JSON})
        assert (answer.code, answer.json["reason"]) == (403, "Forbidden")


# -- client certificates

CERTIFICATES = (
    CertificateConfig(Role.ADMIN, common_name="alice"),
    CertificateConfig(Role.VIEWER, organization="sre"),
    CertificateConfig(Role.OPERATOR, organization="oncall"),
)


def _tls_config(folder: Path, authority: Authority, *, clients: bool = True) -> AdminConfig:
    (folder / "ca.crt").write_bytes(authority.certificate)
    cert, key = authority.server().write(folder, "server")
    client_ca = str(folder / "ca.crt") if clients else None
    return AdminConfig(
        "127.0.0.1:0",
        tokens=token_configs(folder),
        tls=TlsConfig(str(cert), str(key), client_ca),
        certificates=CERTIFICATES if clients else (),
    )


def _client(
    folder: Path, authority: Authority, name: str = "", groups: tuple[str, ...] = ()
) -> ssl.SSLContext:
    """With a certificate unless ``name`` is empty."""
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    if name:
        context.load_cert_chain(*authority.client(name, groups).write(folder, "client"))
    return context


@pytest.mark.parametrize(
    ("name", "groups", "role"),
    [
        ("alice", (), "admin"),
        ("bob", ("sre",), "viewer"),
        ("bob", ("sre", "oncall", "others"), "operator"),
        ("bob", ("others",), None),
        ("Alice", (), None),
    ],
)
async def test_a_certificate_has_the_role_of_its_name_or_organization(
    tmp_path: Path, name: str, groups: tuple[str, ...], role: str | None
) -> None:
    authority = Authority("operators")
    config = _tls_config(tmp_path, authority)
    tls = _client(tmp_path, authority, name, groups)
    async with serving(tmp_path, config, tls=tls) as admin:
        answer = await admin.door.ask("GET", "/v1/whoami")
        if role is None:
            assert answer.code == 401
            assert "admin.certificates" in answer.message
        else:
            assert (answer.json["name"], answer.json["role"]) == (name, role)
            assert answer.json["how"] == "certificate"


async def test_a_certificate_of_an_intermediate_authority_counts_with_its_chain(
    tmp_path: Path,
) -> None:
    """On every connection, and without the chain on none."""
    root, intermediate = Root(), Authority("intermediate")
    config = _tls_config(tmp_path, intermediate)
    (tmp_path / "ca.crt").write_bytes(root.certificate)
    leaf = intermediate.client("alice")
    for name, chain in (("alone", b""), ("whole", root.signs(intermediate))):
        pair = Pair(leaf.certificate + chain, leaf.key).write(tmp_path, name)
        tls = _client(tmp_path, intermediate)
        tls.load_cert_chain(*pair)
        async with serving(tmp_path, config, tls=tls) as admin:
            if not chain:
                with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                    await admin.door.ask("GET", "/v1/whoami")
                continue
            for _ in range(3):
                async with aiohttp.ClientSession() as session:
                    fresh = Door(admin.door.base, session, tls)
                    answer = await fresh.ask("GET", "/v1/whoami")
                assert (answer.code, answer.json["name"]) == (200, "alice")
            await admin.door.ask("GET", "/v1/whoami")
            (tmp_path / "ca.crt").write_bytes(Authority("new").certificate)
            admin.server.look_at_files()
            assert (await admin.door.ask("GET", "/v1/whoami")).code == 401


class Root:
    """An authority of authorities."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
        self.certificate = self._sign(self._name, self._key.public_key())

    def signs(self, other: Authority) -> bytes:
        """A certificate for ``other``, in PEM."""
        key = other.x509.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return self._sign(other.name, key)

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> bytes:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1))
        builder = builder.not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), True)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


async def test_a_token_counts_before_a_certificate_and_a_wrong_one_is_not_made_good(
    tmp_path: Path,
) -> None:
    authority = Authority("operators")
    config = _tls_config(tmp_path, authority)
    async with serving(tmp_path, config, tls=_client(tmp_path, authority, "alice")) as admin:
        answer = await admin.door.holding(Role.VIEWER).ask("GET", "/v1/whoami")
        assert answer.json["role"] == "viewer"
        assert (await admin.door.ask("GET", "/v1/whoami", bearer("wrong"))).code == 401


async def test_without_a_client_ca_no_certificate_is_asked_for(tmp_path: Path) -> None:
    authority = Authority("operators")
    config = _tls_config(tmp_path, authority, clients=False)
    async with serving(tmp_path, config, tls=_client(tmp_path, authority, "alice")) as admin:
        assert (await admin.door.ask("GET", "/v1/whoami")).code == 401
        assert (await admin.door.holding(Role.VIEWER).ask("GET", "/v1/whoami")).code == 200


async def test_a_certificate_of_another_authority_ends_the_handshake(tmp_path: Path) -> None:
    authority, other = Authority("operators"), Authority("others")
    config = _tls_config(tmp_path, authority)
    tls = _client(tmp_path, authority)
    tls.load_cert_chain(*other.client("alice", ()).write(tmp_path, "other"))
    async with serving(tmp_path, config, tls=tls) as admin:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await admin.door.ask("GET", "/v1/whoami")


async def test_a_withdrawn_authority_counts_for_connections_already_open(tmp_path: Path) -> None:
    authority = Authority("operators")
    config = _tls_config(tmp_path, authority)
    async with serving(tmp_path, config, tls=_client(tmp_path, authority, "alice")) as admin:
        assert (await admin.door.ask("GET", "/v1/whoami")).code == 200
        (tmp_path / "ca.crt").write_bytes(Authority("new").certificate)
        assert admin.server.look_at_files() == ("admin.tls.clientCAFile",)
        answer = await admin.door.ask("GET", "/v1/whoami")
        assert answer.code == 401
        assert "no longer trusted" in answer.message


async def test_a_new_serving_certificate_is_presented_to_the_next_connection(
    tmp_path: Path,
) -> None:
    authority = Authority("operators")
    config = _tls_config(tmp_path, authority)
    async with serving(tmp_path, config, tls=_client(tmp_path, authority)) as admin:

        def presented() -> bytes:
            return ssl.get_server_certificate(admin.server.address).encode()

        loop = asyncio.get_running_loop()
        before = await loop.run_in_executor(None, presented)
        pair = authority.server(days=2)
        pair.write(tmp_path, "server")
        admin.server.look_at_files()
        after = await loop.run_in_executor(None, presented)
        assert before != after
        assert after.split() == pair.certificate.split()


async def test_a_broken_pair_keeps_the_one_before_and_is_told(tmp_path: Path) -> None:
    authority = Authority("operators")
    config = _tls_config(tmp_path, authority)
    async with serving(tmp_path, config, tls=_client(tmp_path, authority)) as admin:
        (tmp_path / "server.key").write_bytes(authority.server().key)
        assert admin.server.look_at_files() == ()
        answer = await admin.door.holding(Role.VIEWER).ask("GET", "/v1/status")
        assert "does not belong" in answer.json["brokenFiles"]["admin.tls.certFile"]


async def test_handshakes_that_never_end_keep_nobody_out(tmp_path: Path) -> None:
    authority = Authority("operators")
    config = _tls_config(tmp_path, authority)
    async with serving(tmp_path, config, tls=_client(tmp_path, authority, "alice")) as admin:
        silent = [socket.create_connection(admin.server.address) for _ in range(300)]
        try:
            assert (await admin.door.ask("GET", "/v1/whoami")).code == 200
        finally:
            for one in silent:
                one.close()


# -- the Unix socket


def _with_socket(folder: Path, mode: int = 0o600, role: Role = Role.ADMIN) -> AdminConfig:
    return AdminConfig("127.0.0.1:0", socket=SocketConfig(str(folder / "s"), mode, role))


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
async def test_the_socket_has_the_configured_permissions(tmp_path: Path, mode: int) -> None:
    async with serving(tmp_path, _with_socket(tmp_path, mode)):
        found = (tmp_path / "s").stat().st_mode
        assert stat.S_ISSOCK(found)
        assert stat.S_IMODE(found) == mode
    assert not (tmp_path / "s").exists()


async def test_on_the_socket_the_kernel_says_who_asks_and_no_host_is_foreign(
    tmp_path: Path,
) -> None:
    config = _with_socket(tmp_path, role=Role.OPERATOR)
    async with serving(tmp_path, config), through_socket(str(tmp_path / "s")) as door:
        for headers in ({}, bearer("wrong"), {"Host": "evil.example"}):
            answer = await door.ask("GET", "/v1/whoami", headers)
            assert answer.json["role"] == "operator"
            assert answer.json["source"] == answer.json["how"] == "unix"
            assert answer.json["name"].startswith(f"uid {os.getuid()} (")
        assert (await door.send("PUT", "/v1/policy", {})).code == 403


async def test_the_socket_lends_nothing_to_the_address(tmp_path: Path) -> None:
    async with serving(tmp_path, _with_socket(tmp_path)) as admin:
        assert (await admin.door.ask("GET", "/v1/whoami")).code == 401


async def test_a_stale_socket_is_removed_and_anything_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    async with serving(tmp_path, _with_socket(tmp_path)), through_socket(str(path)) as door:
        assert (await door.ask("GET", "/livez")).code == 200
        with pytest.raises(StartupError, match="another process listens"):
            open_socket(SocketConfig(str(path)))
        assert (await door.ask("GET", "/livez")).code == 200
    path.write_text("precious")
    with pytest.raises(StartupError, match="is no socket"):
        async with serving(tmp_path, _with_socket(tmp_path)):
            pass
    assert path.read_text() == "precious"


async def test_a_path_the_kernel_cannot_hold_is_named(tmp_path: Path) -> None:
    config = AdminConfig("127.0.0.1:0", socket=SocketConfig("/tmp/" + "x" * 200))
    with pytest.raises(StartupError, match=r"admin\.socket\.path: longer than 107"):
        async with serving(tmp_path, config):
            pass


# -- strangers with time


async def test_idle_strangers_lock_out_neither_a_token_nor_the_socket(tmp_path: Path) -> None:
    """More idle and half-spoken connections than the port takes."""
    config = AdminConfig(
        "127.0.0.1:0", tokens=token_configs(tmp_path), socket=SocketConfig(str(tmp_path / "s"))
    )
    async with serving(tmp_path, config) as admin, through_socket(str(tmp_path / "s")) as door:
        operator = admin.door.holding(Role.OPERATOR)
        assert (await operator.ask("GET", "/v1/whoami")).code == 200  # kept alive from here on
        strangers = []
        for n in range(600):
            stranger = socket.create_connection(admin.server.address)
            stranger.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: "[: n % 50])
            strangers.append(stranger)
            await asyncio.sleep(0)
        try:
            async with aiohttp.ClientSession() as fresh:
                headers = bearer(TOKENS[Role.VIEWER])
                url = admin.door.base + "/v1/whoami"
                async with fresh.get(url, headers=headers) as response:
                    assert response.status == 200
            assert (await operator.ask("GET", "/v1/whoami")).code == 200
            assert (await door.ask("GET", "/v1/whoami")).code == 200
        finally:
            for stranger in strangers:
                stranger.close()


async def test_bodies_up_to_the_bound_are_read_and_no_further(admin: Admin) -> None:
    yaml = {"Content-Type": "application/yaml"}
    door = admin.door.holding(Role.ADMIN)
    at_most = await door.ask("PUT", "/v1/policy", yaml, io.BytesIO(b"#" * (1 << 20)))
    assert at_most.code == 422
    above = await door.ask("PUT", "/v1/policy", yaml, io.BytesIO(b"#" * ((1 << 20) + 1)))
    assert above.code == 413
