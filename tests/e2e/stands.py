"""A stand: one API server, a guard before it over TLS, and a kubeconfig that reaches both."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import yaml

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.authentication import RequestHeaders, read_tokens
from apiguard.demo.certs import Authority, server_context
from tests.conftest import Certificates
from tests.e2e.guard import PATIENCE, Guard, until
from tests.e2e.real import PROXY_NAME, TOKENS

KUBECTL = Path(sys.executable).with_name("kubectl")
SERVER_NAME = "kubernetes.default.svc"
ADMIN, VIEWER = "admin-token", "viewer-token"
SMALL_CLUSTER = ("--nodes", "3", "--pods", "20", "--updates", "5")
COMMAND_SECONDS = 60.0  # for one kubectl command on a busy machine


class ApiServer(Protocol):
    """What a guard can be put before: its address, its authority, and its static tokens."""

    @property
    def url(self) -> str: ...

    @property
    def ca_file(self) -> Path: ...

    @property
    def tokens_file(self) -> Path: ...


class EmbeddedProcess:
    """The embedded API server with a small, changing cluster, as a process of its own."""

    def __init__(
        self, folder: Path, certificates: Certificates, options: Sequence[str] = SMALL_CLUSTER
    ) -> None:
        """``options`` of the embedded server's command line say how large it is."""
        self.tokens_file = folder / "tokens.csv"
        self.tokens_file.write_text(TOKENS)
        self.ca_file = certificates.authority
        certificate, key = certificates.server
        log = folder / "apiserver.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "apiguard.demo.apiserver", "--port", "0"),
                    *("--cert", str(certificate), "--key", str(key)),
                    *("--tokens", str(self.tokens_file)),
                    *options,
                ],
                stdout=output,
                stderr=output,
            )
        try:
            self.url = until("the embedded API server listens", lambda: self._said(log))
        except BaseException:
            self.close()
            raise

    def _said(self, log: Path) -> str:
        text = log.read_text()
        assert self._process.poll() is None, text
        return text.partition("listening on ")[2].partition("\n")[0]

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class EmbeddedThread:
    """The embedded API server in a thread of the test, arranged as ``RealApiServer`` is.

    It accepts client certificates of ``clients``, identity headers from ``PROXY_NAME`` when
    ``proxies`` signed its certificate, and ``TOKENS``. ``prepare`` sees it before it listens.
    """

    def __init__(
        self, folder: Path, prepare: Callable[[EmbeddedApiServer], None] | None = None
    ) -> None:
        self.clients, self.proxies = Authority("clients"), Authority("front-proxies")
        self.tokens_file = folder / "tokens.csv"
        self.tokens_file.write_text(TOKENS)
        self.ca_file = folder / "ca.crt"
        self.server = EmbeddedApiServer(self._options(folder))
        if prepare is not None:
            prepare(self.server)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._run(self.server.start())
        except BaseException:
            self._end()
            raise

    def _options(self, folder: Path) -> ApiServerOptions:
        authority = Authority("apiserver")
        self.ca_file.write_bytes(authority.certificate)
        pair = authority.server().write(folder, "apiserver")
        asked_for = self.clients.certificate + self.proxies.certificate
        return ApiServerOptions(
            tls=server_context(*pair, client_authorities=asked_for),
            tokens=read_tokens(TOKENS),
            clients=(self.clients.x509,),
            front_proxy=RequestHeaders((self.proxies.x509,), frozenset({PROXY_NAME})),
        )

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return self.server.port

    def close(self) -> None:
        try:
            self._run(self.server.stop())
        finally:
            self._end()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; header names in lower case, in the order received."""

    code: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """Values of that field, joined."""
        return ", ".join(value for found, value in self.headers if found == name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the API: straight to the server, or through the guard."""

    name: str
    address: tuple[str, int]
    tls: ssl.SSLContext = field(repr=False)
    authority: Path

    @property
    def url(self) -> str:
        return "https://{}:{}".format(*self.address)

    def connect(self, seconds: float = COMMAND_SECONDS) -> http.client.HTTPSConnection:
        """Not connected yet; the caller closes it."""
        return http.client.HTTPSConnection(*self.address, timeout=seconds, context=self.tls)

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        token: str = ADMIN,
    ) -> Reply:
        """One request with a bearer token on a connection of its own."""
        connection = self.connect()
        try:
            sent = {"Authorization": f"Bearer {token}", **(headers or {})}
            connection.request(method, target, body=body, headers=sent)
            answer = connection.getresponse()
            got = tuple((name.lower(), value) for name, value in answer.getheaders())
            return Reply(answer.status, got, answer.read())
        finally:
            connection.close()

    def send(self, method: str, target: str, document: object, **headers: str) -> Reply:
        """One request with a JSON body."""
        sent = {"Content-Type": "application/json", **headers}
        return self.ask(method, target, sent, json.dumps(document).encode())


class Stand:
    """``guarded`` and ``direct`` lead to the same cluster; ``kubectl`` goes through the guard."""

    def __init__(
        self,
        name: str,
        folder: Path,
        server: ApiServer,
        certificates: Certificates,
        policy: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """``settings`` are sections of the guard's configuration that the stand has no say in."""
        self.name = name
        self.server = server
        self._folder = folder
        self.guard = Guard(folder, server.url)
        certificate, key = certificates.server
        self.guard.settings["listen"]["tls"] = {"certFile": str(certificate), "keyFile": str(key)}
        self.guard.settings["upstream"] |= {
            "caFile": str(server.ca_file),
            "serverName": SERVER_NAME,
        }
        if policy:
            self.guard.write_policy(policy)
        self.guard.settings["identity"] = {"staticTokensFile": str(server.tokens_file)}
        self.guard.settings |= settings or {}
        try:
            self.guard.start()
            self.guarded = _way("guarded", self.guard.address, certificates.authority)
            parts = urlsplit(server.url)
            assert parts.hostname is not None
            assert parts.port is not None
            self.direct = _way("direct", (parts.hostname, parts.port), server.ca_file)
            self.kubeconfig = folder / "kubeconfig"
            self.kubeconfig.write_text(yaml.safe_dump(kubeconfig(self.guarded, self.direct)))
        except BaseException:
            self.guard.close()
            raise

    def close(self) -> None:
        self.guard.close()

    def namespace(self, name: str) -> str:
        """A namespace of the test's own."""
        made = self.direct.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        assert made.code == 201, made.body
        return name

    def command(self, *arguments: str) -> list[str]:
        """The command line of kubectl through the guard."""
        return [
            str(KUBECTL),
            f"--kubeconfig={self.kubeconfig}",
            f"--cache-dir={self._folder / 'cache'}",
            *arguments,
        ]

    def kubectl(
        self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None
    ) -> str:
        """What it printed; fails when it fails."""
        done = self.try_kubectl(arguments, stdin, environment)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def try_kubectl(
        self,
        arguments: Sequence[str],
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """As ``kubectl``, for commands that may fail."""
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            env={**os.environ, **(environment or {})},
        )


def _way(name: str, address: tuple[str, int], authority: Path) -> Way:
    tls = ssl.create_default_context(cafile=str(authority))
    # What kube-apiserver makes for itself is signed by a certificate beside it in the file;
    # it names loopback, so the name is checked as usual.
    return Way(name, address, tls, authority)


def kubeconfig(guarded: Way, direct: Way) -> dict[str, object]:
    """Contexts ``admin`` and ``viewer`` through the guard, ``direct`` past it."""
    contexts = (("admin", guarded, "admin"), ("viewer", guarded, "viewer"))
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": way.name,
                "cluster": {"server": way.url, "certificate-authority": str(way.authority)},
            }
            for way in (guarded, direct)
        ],
        "users": [
            {"name": "admin", "user": {"token": ADMIN}},
            {"name": "viewer", "user": {"token": VIEWER}},
        ],
        "contexts": [
            {"name": name, "context": {"cluster": way.name, "user": user}}
            for name, way, user in (*contexts, ("direct", direct, "admin"))
        ],
        "current-context": "admin",
    }
