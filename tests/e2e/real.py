"""A real kube-apiserver and etcd on loopback, as envtest arranges them."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from apiguard.demo.certs import Authority
from tests.e2e.guard import until

ASSETS = Path(os.environ.get("KUBEBUILDER_ASSETS", "/usr/local/kubebuilder/bin"))
TOKENS = 'admin-token,admin,1,"system:masters"\nviewer-token,viewer,2,"viewers"\n'
PROXY_NAME = "front-proxy"
START_SECONDS = 60.0


def missing() -> str:
    """Why the real servers cannot be used, "" when they can."""
    absent = [name for name in ("etcd", "kube-apiserver") if not (ASSETS / name).is_file()]
    return f"no {' and '.join(absent)} in {ASSETS} (KUBEBUILDER_ASSETS)" if absent else ""


class RealApiServer:
    """etcd and kube-apiserver with static tokens; everything they write is in ``folder``.

    It accepts client certificates of ``clients``, and identity headers from ``PROXY_NAME`` when
    ``proxies`` signed its certificate.
    """

    def __init__(self, folder: Path, *, anonymous: bool = True, tokens: str = TOKENS) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.port, etcd, peer = free_ports(3)
        self.clients, self.proxies = Authority("clients"), Authority("front-proxies")
        self.anonymous = anonymous
        self.tokens_file = folder / "tokens.csv"
        self.tokens_file.write_text(tokens)
        self.ca_file = folder / "certs" / "apiserver.crt"
        self._start_etcd(etcd, peer)
        self._start_apiserver(etcd)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def pids(self) -> list[int]:
        """etcd and kube-apiserver, those that run."""
        return [process.pid for process in self._processes]

    def wait(self) -> None:
        """Until it says it is ready."""
        until("kube-apiserver is ready", self._ready, START_SECONDS)

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder / "etcd", ignore_errors=True)

    def _ready(self) -> bool:
        if not self.ca_file.exists():
            return False
        context = ssl._create_unverified_context()
        request = urllib.request.Request(
            f"{self.url}/readyz", headers={"Authorization": "Bearer admin-token"}
        )
        try:
            with urllib.request.urlopen(request, timeout=2, context=context) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _start_etcd(self, port: int, peer: int) -> None:
        client = f"http://127.0.0.1:{port}"
        peers = f"http://127.0.0.1:{peer}"
        self._run(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )

    def stop(self) -> None:
        """Ends kube-apiserver as a crash would; etcd stays."""
        apiserver = self._processes.pop()
        apiserver.kill()
        apiserver.wait()

    def start_again(self) -> None:
        """After ``stop``, on the same port, with the same keys; ``wait`` follows."""
        self._run(*self._apiserver)

    def _start_apiserver(self, etcd: int) -> None:
        key = self._folder / "sa.key"
        clients, proxies = self._folder / "clients.crt", self._folder / "proxies.crt"
        clients.write_bytes(self.clients.certificate)
        proxies.write_bytes(self.proxies.certificate)
        made = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        key.write_bytes(
            made.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        self._apiserver = (
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self._folder / 'certs'}",
            f"--token-auth-file={self.tokens_file}",
            f"--client-ca-file={clients}",
            f"--anonymous-auth={str(self.anonymous).lower()}",
            f"--requestheader-client-ca-file={proxies}",
            f"--requestheader-allowed-names={PROXY_NAME}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-uid-headers=X-Remote-Uid",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--disable-admission-plugins=ServiceAccount",
        )
        self._run(*self._apiserver)

    def _run(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen([str(ASSETS / name), *arguments], stdout=log, stderr=log)
            )


def free_ports(count: int) -> list[int]:
    """Ports the kernel just gave out; all held at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
