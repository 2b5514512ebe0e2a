"""Files change under a guard at work: nobody notices but those who look at certificates.

The load runs all the while: callers of each kind on connections kept open, and callers that
connect anew for each request. Upstream is the embedded server, which tells who showed what.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.authentication import Authenticator, Headers
from apiguard.demo.certs import Authority, Pair
from apiguard.kube.identity import Identity
from tests.e2e.guard import Guard, until
from tests.e2e.real import PROXY_NAME, TOKENS
from tests.e2e.stands import EmbeddedThread
from tests.unit.identity.issuing import CLUSTER, bound_claims, ec_key, jwk_of, sign

pytestmark = pytest.mark.e2e

LIMIT_SECONDS = 10.0
"""Within which a change must be in use."""

ALLOWED = "/api"
OPEN_CALLERS = 2  # of each kind
NEW_CALLERS = 1
POLICY = """
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules:
  - name: load
    match: {users: [alice, viewer, "system:serviceaccount:default:robot"]}
    exempt: true
default:
  limits: [{per: [user], requestsPerSecond: 40, burst: 40}]
"""
"""A caller of the load that were taken for nobody known for a moment would be refused at once."""


class Witness(Authenticator):
    """Remembers by which certificates requests came; ``seen`` maps SHA-256 to the last request."""

    def __init__(self, known: Authenticator) -> None:
        super().__init__(
            dict(known.tokens), known.anonymous, known.client_authorities, known.front_proxy
        )
        self.seen: dict[str, float] = {}

    def authenticate(self, headers: Headers, certificate: bytes | None, now: float) -> Identity:
        if certificate is not None:
            self.seen[hashlib.sha256(certificate).hexdigest()] = time.monotonic()
        return super().authenticate(headers, certificate, now)


def print_of(pair: Pair) -> str:
    der = ssl.PEM_cert_to_DER_cert(pair.certificate.decode())
    return hashlib.sha256(der).hexdigest()


@dataclass
class Caller:
    """Who asks, by certificate or token, with a TLS context that checks the guard."""

    tls: ssl.SSLContext
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def connect(self, address: tuple[str, int]) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(*address, context=self.tls, timeout=20)
        connection.connect()
        connection.auto_open = 0  # a connection that was dropped must show
        return connection

    def ask(self, connection: http.client.HTTPSConnection) -> str:
        """ "200", or a code with what else was said."""
        connection.request("GET", ALLOWED, headers=self.headers)
        response = connection.getresponse()
        body = response.read().decode()
        return "200" if response.status == 200 else f"{response.status} {body[:300]}"

    def ask_anew(self, address: tuple[str, int]) -> str:
        connection = self.connect(address)
        try:
            return self.ask(connection)
        finally:
            connection.close()


@dataclass
class Load:
    """Threads that ask one request after the other until ``end``; ``outcomes`` counts."""

    address: tuple[str, int]
    outcomes: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, caller: Caller, *, kept: bool) -> None:
        work = self._keep if kept else self._renew
        thread = threading.Thread(target=work, args=(name, caller), daemon=True)
        self._threads.append(thread)
        thread.start()

    def count(self, prefix: str) -> int:
        with self._lock:
            return sum(n for key, n in self.outcomes.items() if key.startswith(prefix))

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _keep(self, name: str, caller: Caller) -> None:
        try:
            connection = caller.connect(self.address)
        except (OSError, http.client.HTTPException) as error:
            self._note(name, f"{type(error).__name__}: {error}")
            return
        try:
            while not self._stop.is_set() and self._one(name, lambda: caller.ask(connection)):
                pass
        finally:
            connection.close()

    def _renew(self, name: str, caller: Caller) -> None:
        while not self._stop.is_set():
            self._one(name, lambda: caller.ask_anew(self.address))

    def _one(self, name: str, ask: Callable[[], str]) -> bool:
        try:
            code = ask()
        except (OSError, http.client.HTTPException) as error:
            self._note(name, f"{type(error).__name__}: {error}")
            return False
        self._note(name, code)
        return True

    def _note(self, name: str, outcome: str) -> None:
        with self._lock:
            self.outcomes[f"{outcome} {name}"] += 1


@dataclass
class Stand:
    """A guard of two workers that follows every kind of file there is, in ``folder``."""

    folder: Path
    apiserver: EmbeddedThread
    witness: Witness
    guard: Guard
    serving: Authority

    def tls(self, pair: Pair | None = None) -> ssl.SSLContext:
        """A client's, with the certificate of ``pair``."""
        context = ssl.create_default_context(cadata=self.serving.certificate.decode())
        if pair is not None:
            context.load_cert_chain(*pair.write(self.folder, f"client-{print_of(pair)[:8]}"))
        return context

    def served(self) -> str:
        """SHA-256 of the certificate a new connection is shown."""
        pem = ssl.get_server_certificate(self.guard.address)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    def broken(self) -> dict[str, str]:
        found: dict[str, str] = self.guard.admin("GET", "/v1/status").json["brokenFiles"]
        return found

    def limited(self) -> set[str]:
        """Users that have a bucket of their own."""
        rules = self.guard.admin("GET", "/v1/flows").json["rules"]
        buckets = [b for rule in rules for limit in rule["limits"] for b in limit["buckets"]]
        return {bucket["key"][0].removeprefix("user:") for bucket in buckets}


def service_token(name: str, key: int) -> str:
    """Of the cluster's service account ``name``, for an hour, signed by key number ``key``."""
    now = time.time()
    claims = bound_claims(
        sub=f"system:serviceaccount:default:{name}",
        iat=now - 60, nbf=now - 60, exp=now + 3600, jti=name,
        **{"kubernetes.io": {"namespace": "default", "serviceaccount": {"name": name, "uid": "u"}}},
    )  # fmt: skip
    return sign(claims, ec_key(key), "ES256", f"k{key}")


def key_set(*keys: int) -> str:
    return json.dumps({"keys": [jwk_of(ec_key(key), f"k{key}") for key in keys]})


def settings(stand: Stand) -> Mapping[str, object]:
    tls = {"certFile": "serving.crt", "keyFile": "serving.key", "clientCAFile": "clients.crt"}
    return {
        "workers": 2,
        "listen": {"address": "127.0.0.1:0", "tls": tls},
        "upstream": {
            "servers": [stand.apiserver.url],
            "caFile": str(stand.apiserver.ca_file),
            "frontProxy": {"certFile": "proxy.crt", "keyFile": "proxy.key"},
            "credentials": {"certFile": "own.crt", "keyFile": "own.key"},
        },
        "identity": {
            "staticTokensFile": "tokens.csv",
            "jwt": [{"issuer": CLUSTER, "audiences": [CLUSTER], "jwksFile": "keys.json"}],
        },
    }


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    witnesses: list[Witness] = []

    def watch(server: EmbeddedApiServer) -> None:
        witnesses.append(Witness(server.authenticator))
        server.authenticator = witnesses[0]

    upstream, folder = tmp_path / "upstream", tmp_path / "guard"
    upstream.mkdir()
    folder.mkdir()
    apiserver = EmbeddedThread(upstream, watch)
    guard = Guard(folder, apiserver.url)
    made = Stand(folder, apiserver, witnesses[0], guard, Authority("guard"))
    guard.settings |= settings(made)
    guard.write_policy(POLICY)
    (folder / "clients.crt").write_bytes(apiserver.clients.certificate)
    (folder / "tokens.csv").write_text(TOKENS)
    (folder / "keys.json").write_text(key_set(1))
    made.serving.server().write(folder, "serving")
    apiserver.proxies.client(PROXY_NAME).write(folder, "proxy")
    apiserver.clients.client("apiguard", ["system:masters"]).write(folder, "own")
    try:
        guard.start()
        until("ready", lambda: guard.admin("GET", "/readyz").code == 200)
        yield made
    finally:
        guard.close()
        apiserver.close()


BROKEN = {
    "serving.key": "listen.tls.certFile",
    "clients.crt": "listen.tls.clientCAFile",
    "proxy.key": "upstream.frontProxy.certFile",
    "own.crt": "upstream.credentials.certFile",
    "tokens.csv": "identity.staticTokensFile",
    "keys.json": f"identity.jwt[{CLUSTER}]",
}


def begin_load(stand: Stand) -> Load:
    """Every kind of caller, each well known; returns once all were answered a few times."""
    robot = service_token("robot", 1)
    stand.witness.tokens = {**stand.witness.tokens, robot: Identity("robot")}
    certified = stand.apiserver.clients.client("alice", ["devs", "ops"])
    load = Load(stand.guard.address)
    callers = {
        "certificate": Caller(stand.tls(certified)),
        "service account": Caller(stand.tls(), robot),
        "static token": Caller(stand.tls(), "viewer-token"),
    }
    for name, caller in callers.items():
        for _ in range(OPEN_CALLERS):
            load.add(name, caller, kept=True)
        for _ in range(NEW_CALLERS):
            load.add(f"{name}, anew", caller, kept=False)
    for name in callers:
        until(name, lambda name=name: load.count(f"200 {name}") > 20)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    return load


def test_everything_is_replaced_under_load_and_no_request_fails(stand: Stand) -> None:
    """First by what is broken, which changes nothing and is told; then by what is good."""
    load = begin_load(stand)
    began = time.monotonic()
    try:
        keep_what_was_good(stand)
        times = replace_all(stand)
    finally:
        load.end()
    seconds = time.monotonic() - began
    total = sum(load.outcomes.values())
    print(f"{total} requests, {total / seconds:.0f}/s; in use after (s): {times}")  # noqa: T201 - shown with a failure, or -s
    assert max(times.values()) <= LIMIT_SECONDS
    assert not {key: n for key, n in load.outcomes.items() if not key.startswith("200 ")}
    assert total / seconds > 100


def keep_what_was_good(stand: Stand) -> None:
    shown = stand.served()
    for name in BROKEN:
        (stand.folder / name).write_text("broken, just as it is")
    until("told", lambda: stand.broken().keys() == set(BROKEN.values()), LIMIT_SECONDS)
    assert stand.served() == shown


def replace_all(stand: Stand) -> dict[str, float]:
    """Writes a new one of each; after how many seconds each was seen in use."""
    clients, proxies = stand.apiserver.clients, stand.apiserver.proxies
    successor = Authority("successor")
    serving, proxy = stand.serving.server(), proxies.client(PROXY_NAME)
    own = clients.client("apiguard", ["system:masters"])
    late = Caller(stand.tls(), service_token("late", 2))
    newcomer = Caller(stand.tls(), "newcomer-token")
    modern = Caller(stand.tls(successor.client("modern")))
    address = stand.guard.address
    old = set(stand.witness.seen)

    begun = time.monotonic()
    serving.write(stand.folder, "serving")
    (stand.folder / "clients.crt").write_bytes(clients.certificate + successor.certificate)
    proxy.write(stand.folder, "proxy")
    own.write(stand.folder, "own")
    (stand.folder / "tokens.csv").write_text(TOKENS + "newcomer-token,newcomer,9\n")
    (stand.folder / "keys.json").write_text(key_set(1, 2))

    def counted(caller: Caller, user: str) -> bool:
        caller.ask_anew(address)  # upstream knows none of them, but the guard shall
        return user in stand.limited()

    def admitted() -> bool:
        try:
            return modern.ask_anew(address) == "200"
        except OSError:
            return False

    waits: dict[str, Callable[[], bool]] = {
        "serving certificate": lambda: stand.served() == print_of(serving),
        "front-proxy certificate": lambda: print_of(proxy) in stand.witness.seen,
        "own certificate": lambda: print_of(own) in stand.witness.seen,
        "client authority": admitted,
        "static tokens": lambda: counted(newcomer, "newcomer"),
        "key set": lambda: counted(late, "system:serviceaccount:default:late"),
    }
    times = wait_for_all(waits, begun)
    assert not stand.broken()
    settled(stand, old)
    return times


def wait_for_all(waits: dict[str, Callable[[], bool]], begun: float) -> dict[str, float]:
    """Seconds from ``begun`` until each held for the first time."""
    times: dict[str, float] = {}

    def look() -> bool:
        for name in waits.keys() - times.keys():
            if waits[name]():
                times[name] = round(time.monotonic() - begun, 2)
        return len(times) == len(waits)

    until(", ".join(waits), look, LIMIT_SECONDS + 5)
    return times


def settled(stand: Stand, old: set[str]) -> None:
    """Returns once upstream has seen none of ``old`` for a second of load; new ones it did see."""

    def unseen() -> bool:
        newest = max(stand.witness.seen.values())
        return all(newest - stand.witness.seen[name] > 1 for name in old)

    until("old certificates are no longer shown upstream", unseen, LIMIT_SECONDS)
