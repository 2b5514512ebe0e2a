"""A control-plane node as processes: kubeadm's files under a folder, and what its kubelet does.

Two loopback addresses stand for the node's own and for 127.0.0.1, free ports for the known ones.
Commands and manifests written for a real node are carried over word for word but for these.
"""

from __future__ import annotations

import asyncio
import functools
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.authentication import RequestHeaders
from apiguard.demo.certs import SERVER_NAMES, Authority, Pair, server_context
from tests.e2e.guard import PATIENCE, until
from tests.e2e.real import ASSETS, START_SECONDS

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
NODE_IP = "127.0.0.2"
COMMAND_SECONDS = 60.0

KUBEADM = """
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system}
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=192.0.2.10
    - --allow-privileged=true
    - --authorization-mode=Node,RBAC
    - --client-ca-file=/etc/kubernetes/pki/ca.crt
    - --etcd-servers=http://127.0.0.1:2379
    - --requestheader-allowed-names=front-proxy-client
    - --requestheader-client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt
    - --requestheader-extra-headers-prefix=X-Remote-Extra-
    - --requestheader-group-headers=X-Remote-Group
    - --requestheader-username-headers=X-Remote-User
    - --secure-port=6443
    - --service-account-issuer=https://kubernetes.default.svc.cluster.local
    - --service-account-key-file=/etc/kubernetes/pki/sa.pub
    - --service-account-signing-key-file=/etc/kubernetes/pki/sa.key
    - --service-cluster-ip-range=10.96.0.0/12
    - --tls-cert-file=/etc/kubernetes/pki/apiserver.crt
    - --tls-private-key-file=/etc/kubernetes/pki/apiserver.key
    name: kube-apiserver
    livenessProbe:
      httpGet:
        host: 192.0.2.10
        path: /livez
        port: 6443
        scheme: HTTPS
    readinessProbe:
      httpGet:
        host: 192.0.2.10
        path: /readyz
        port: 6443
        scheme: HTTPS
"""
"""As kubeadm 1.33 writes it, without what has no part here. Without --bind-address it listens on
every address of the node; this node has one that others know."""


class Container(Protocol):
    """Something a manifest started."""

    def stop(self) -> None: ...

    def problem(self) -> str:
        """Why it does not run any more, or ""."""
        ...


class Process:
    """A container as a process; ``log`` keeps what it says."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)

    def stop(self) -> None:
        """SIGTERM and patience, as terminationGracePeriodSeconds gives it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(START_SECONDS)
        finally:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def problem(self) -> str:
        return "" if self._process.poll() is None else self._log.read_text()


class Embedded:
    """The embedded server in a thread. What it stores outlives a restart, as if etcd had it."""

    def __init__(self) -> None:
        self._server: EmbeddedApiServer | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, flags: dict[str, str]) -> Embedded:
        """Under kube-apiserver's flags."""
        options = _options(flags)
        if self._server is None:
            self._server = EmbeddedApiServer(options)
        self._server.options, self._server.port = options, options.port
        self._server.authenticator.front_proxy = options.front_proxy
        self._run(self._server.start())
        return self

    def stop(self) -> None:
        assert self._server is not None
        self._run(self._server.stop())

    def problem(self) -> str:
        return ""

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


def _options(flags: dict[str, str]) -> ApiServerOptions:
    clients = Path(flags["client-ca-file"]).read_bytes()
    proxies = Path(flags["requestheader-client-ca-file"]).read_bytes()
    return ApiServerOptions(
        host=flags["bind-address"],
        port=int(flags["secure-port"]),
        tls=server_context(
            Path(flags["tls-cert-file"]),
            Path(flags["tls-private-key-file"]),
            client_authorities=clients + proxies,
        ),
        clients=tuple(x509.load_pem_x509_certificates(clients)),
        front_proxy=RequestHeaders(
            tuple(x509.load_pem_x509_certificates(proxies)),
            frozenset(flags["requestheader-allowed-names"].split(",")),
            uid=tuple(filter(None, [flags.get("requestheader-uid-headers", "")])),
        ),
    )


class Node:
    """``sync`` does what the kubelet does when manifests changed; ``close`` ends everything."""

    def __init__(self, folder: Path, *, real: bool) -> None:
        self.folder = folder
        self.real = real
        self.port, self.trial_port, self.admin_port, self._etcd_port, peer = ports_of_both(5)
        self._running: dict[str, tuple[str, Container]] = {}
        self._etcd: Container | None = None
        self._embedded = Embedded()
        self._make_files()
        if real:
            self._etcd = Process(_etcd(folder, self._etcd_port, peer), folder / "etcd.log")

    # -- files

    def carried(self, text: str) -> str:
        """``text`` with this node's paths, addresses and ports, everything else as it is."""
        words = {
            "/etc/": f"{self.folder}/etc/",
            "/var/lib/apiguard": f"{self.folder}/var/lib/apiguard",
            "192.0.2.10": NODE_IP,
            "GUARD_GROUP=65532": f"GUARD_GROUP={os.getgid()}",
            "6443": str(self.port),
            "7443": str(self.trial_port),
            "7444": str(self.admin_port),
            "2379": str(self._etcd_port),
        }
        if not self.real:
            words["kubernetes.default.svc.cluster.local"] = "kubernetes.default.svc"
        return re.sub("|".join(map(re.escape, words)), lambda found: words[found[0]], text)

    @property
    def pki(self) -> Path:
        return self.folder / "etc/kubernetes/pki"

    @property
    def manifests(self) -> Path:
        return self.folder / "etc/kubernetes/manifests"

    def _make_files(self) -> None:
        """What kubeadm leaves behind, and a checkout of this repository."""
        for path in (self.pki, self.manifests, self.folder / "var/lib"):
            path.mkdir(parents=True)
        self.authority, proxies = Authority("kubernetes"), Authority("front-proxy-ca")
        self.authority.pair.write(self.pki, "ca")
        proxies.pair.write(self.pki, "front-proxy-ca")
        names = ["kube-apiserver", *SERVER_NAMES, NODE_IP, "10.96.0.1"]
        self.authority.server(list(dict.fromkeys(names))).write(self.pki, "apiserver")
        admin = self.authority.client("kubernetes-admin", ["system:masters"])
        self.write_kubeconfig("admin.conf", admin)
        _write_service_account_key(self.pki)
        (self.manifests / "kube-apiserver.yaml").write_text(self.carried(KUBEADM).lstrip())
        for source in (*ROOT.glob("deploy/**/*"), *ROOT.glob("config/*")):
            if source.is_file():
                copy = self.folder / "checkout" / source.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(self.carried(source.read_text()))
                copy.chmod(source.stat().st_mode)

    def write_kubeconfig(self, name: str, pair: Pair) -> Path:
        """For the node's own address, with a client certificate."""
        certificate, key = pair.write(self.folder, name)
        cluster = {"server": f"https://{NODE_IP}:{self.port}",
                   "certificate-authority": str(self.pki / "ca.crt")}  # fmt: skip
        user = {"client-certificate": str(certificate), "client-key": str(key)}
        path = self.folder / "etc/kubernetes" / name
        text = yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "kubernetes", "cluster": cluster}],
                "users": [{"name": "user", "user": user}],
                "contexts": [{"name": "it", "context": {"cluster": "kubernetes", "user": "user"}}],
                "current-context": "it",
            }
        )
        path.write_text(text)
        return path

    # -- the operator

    def bash(self, script: str, environment: dict[str, str] | None = None) -> str:
        """What a script of the documentation prints, run in the checkout; fails when it fails."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.carried(script)],
            cwd=self.folder / "checkout",
            env={
                **{name: value for name, value in os.environ.items() if "APIGUARD" not in name},
                "PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}",
                "HOME": str(self.folder),
                "NODE_IP": NODE_IP,
                "KUBECONFIG": str(self.folder / "etc/kubernetes/admin.conf"),
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, (script, done.stdout, done.stderr, self.logs())
        return done.stdout

    def logs(self) -> str:
        """The end of what each container said."""
        found = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in found)

    # -- the kubelet

    def sync(self) -> None:
        """Stops pods whose manifest changed or went, starts new ones, waits for their probes."""
        wanted = {path.stem: path.read_text() for path in self.manifests.iterdir()}
        for name, (text, container) in list(self._running.items()):
            if wanted.get(name) != text:
                container.stop()
                del self._running[name]
        for name in sorted(wanted.keys() - self._running.keys(), reverse=True):  # API server first
            pod = yaml.safe_load(wanted[name])
            self._running[name] = (wanted[name], self._start(name, pod))
            self._wait_for(name, pod["spec"]["containers"][0])

    def close(self) -> None:
        for name in sorted(self._running):  # the guard before what it talks to
            self._running[name][1].stop()
        self._embedded.close()
        if self._etcd is not None:
            self._etcd.stop()

    def running(self, name: str) -> Container:
        return self._running[name][1]

    def _start(self, name: str, pod: Any) -> Container:
        (container,) = pod["spec"]["containers"]
        if container.get("image", "").startswith("apiguard:"):
            return Process([str(BIN / "apiguard"), *container["args"]], self.folder / f"{name}.log")
        program, *given = container["command"]
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in given)
        flags.setdefault("bind-address", NODE_IP)
        if not self.real:
            return self._embedded.start(flags)
        arguments = [f"--{key}={value}" for key, value in flags.items()]
        # There is no controller that would make the account every pod has.
        arguments.append("--disable-admission-plugins=ServiceAccount")
        return Process([str(ASSETS / program), *arguments], self.folder / f"{name}.log")

    def _wait_for(self, name: str, container: Any) -> None:
        """Every probe of the manifest, as a kubelet sends it: anonymous, verifying nobody."""
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if kind in container:
                passes = functools.partial(self._passes, name, container[kind]["httpGet"])
                until(f"{kind} of {name}", passes, START_SECONDS)

    def _passes(self, name: str, probe: dict[str, Any]) -> bool:
        problem = self.running(name).problem()
        assert not problem, problem
        connection = http.client.HTTPConnection(probe["host"], probe["port"], timeout=5)
        if probe.get("scheme") == "HTTPS":
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(
                probe["host"], probe["port"], timeout=5, context=context
            )
        try:
            connection.request("GET", probe["path"])
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def ports_of_both(count: int) -> list[int]:
    """Ports that are free at 127.0.0.1 and at the node's address."""
    found: list[int] = []
    held: list[socket.socket] = []
    while len(found) < count:
        first = socket.create_server(("127.0.0.1", 0))
        held.append(first)
        port = int(first.getsockname()[1])
        try:
            held.append(socket.create_server((NODE_IP, port)))
        except OSError:
            continue
        found.append(port)
    for sock in held:
        sock.close()
    return found


def _write_service_account_key(folder: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    (folder / "sa.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    (folder / "sa.pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _etcd(folder: Path, port: int, peer: int) -> list[str]:
    client, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    return [
        str(ASSETS / "etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",
    ]
