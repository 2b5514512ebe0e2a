"""kube-apiserver itself, with an etcd of its own and the same number of pods of the same size.

Only kube-apiserver counts as the proxy under test: etcd and the writer run with the harness.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from loadtests.bench import traffic
from loadtests.bench.peers.peer import Peer, Running, Setting
from loadtests.bench.processes import free_port

NAME = "kube-apiserver"
ASSETS = Path(os.environ.get("KUBEBUILDER_ASSETS", "/usr/local/kubebuilder/bin"))
_FILLING_SECONDS = 300.0
_STARTING_SECONDS = 90.0


def start(setting: Setting) -> Running:
    folder = setting.folder / NAME
    folder.mkdir(parents=True, exist_ok=True)
    port, pace = free_port(), free_port()
    process = _start_servers(setting, folder, port)
    authority = str(setting.certificates.authority)
    setting.fleet.start(
        "podwriter",
        [
            *(sys.executable, "-m", "loadtests.bench.podwriter", str(pace), str(port)),
            *(authority, traffic.token(0)),
        ],
        cpus=setting.cpus.others,
        ports=[pace],
        deadline=_FILLING_SECONDS,
    )
    return Running(NAME, port, process, pace=pace)


def _start_servers(setting: Setting, folder: Path, port: int) -> int:
    client, peer = free_port(), free_port()
    client_url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    setting.fleet.start(
        "etcd",
        [
            str(ASSETS / "etcd"),
            *(f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn"),
            *(f"--listen-client-urls={client_url}", f"--advertise-client-urls={client_url}"),
            *(f"--listen-peer-urls={peer_url}", f"--initial-advertise-peer-urls={peer_url}"),
            f"--initial-cluster=default={peer_url}",
        ],
        cpus=setting.cpus.others,
        ports=[client],
    )
    issued = setting.certificates
    tokens, key = folder / "tokens.csv", folder / "sa.key"
    tokens.touch(mode=0o600)
    tokens.write_text(f'{traffic.token(0)},{traffic.user(0)},uid-0,"system:masters"\n')
    key.touch(mode=0o600)
    key.write_bytes(_signing_key())
    return setting.fleet.start(
        NAME,
        [
            str(ASSETS / NAME),
            f"--etcd-servers={client_url}",
            *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"),
            *(f"--secure-port={port}", "--endpoint-reconciler-type=none"),
            *(f"--tls-cert-file={issued.certificate}", f"--tls-private-key-file={issued.key}"),
            *(f"--token-auth-file={tokens}", "--authorization-mode=RBAC"),
            *("--service-cluster-ip-range=10.0.0.0/24", f"--cert-dir={folder / 'certs'}"),
            "--service-account-issuer=https://kubernetes.default.svc",
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            "--disable-admission-plugins=ServiceAccount",
        ],
        cpus=setting.cpus.proxy,
        ports=[port],
        deadline=_STARTING_SECONDS,
    )


def _signing_key() -> bytes:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _missing() -> str:
    absent = [name for name in ("etcd", NAME) if not (ASSETS / name).is_file()]
    return f"no {' and '.join(absent)} in {ASSETS} (KUBEBUILDER_ASSETS)" if absent else ""


KUBERNETES = Peer(NAME, start, absent=_missing)
