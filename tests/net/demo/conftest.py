"""An embedded API server for each test, plain and with TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.authentication import read_tokens
from apiguard.demo.certs import Authority, server_context

TOKENS = read_tokens(
    'admin-token,admin,1,"system:masters"\nalice-token,alice,2,"devs"\nviewer-token,viewer,3,viewers'
)


@dataclass
class TlsServer:
    """A server with its authority and a kubeconfig for the administrator."""

    server: EmbeddedApiServer
    authority: Authority
    kubeconfig: Path
    folder: Path


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedApiServer]:
    """Plain HTTP, tokens, anonymous callers known but not allowed much."""
    found = EmbeddedApiServer(ApiServerOptions(tokens=TOKENS))
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def open_server() -> AsyncIterator[EmbeddedApiServer]:
    """Plain HTTP, everything allowed to everybody."""
    found = EmbeddedApiServer(ApiServerOptions(everybody=True, demo_faults=True))
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def tls(tmp_path: Path) -> AsyncIterator[TlsServer]:
    authority = Authority("test")
    certificate, key = authority.server().write(tmp_path, "server")
    context = server_context(certificate, key, client_authorities=authority.certificate)
    options = ApiServerOptions(tls=context, tokens=TOKENS, clients=(authority.x509,))
    found = EmbeddedApiServer(options)
    await found.start()
    kubeconfig = tmp_path / "kubeconfig"
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    alice = authority.client("alice", ["devs", "ops"]).write(tmp_path, "alice")
    kubeconfig.write_text(yaml.safe_dump(_kubeconfig(found.url, tmp_path, alice)))
    yield TlsServer(found, authority, kubeconfig, tmp_path)
    await found.stop()


def _kubeconfig(url: str, folder: Path, alice: tuple[Path, Path]) -> dict[str, object]:
    certificate, key = alice
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "demo",
                "cluster": {"server": url, "certificate-authority": str(folder / "ca.crt")},
            }
        ],
        "users": [
            {"name": "admin", "user": {"token": "admin-token"}},
            {
                "name": "alice",
                "user": {"client-certificate": str(certificate), "client-key": str(key)},
            },
        ],
        "contexts": [
            {"name": name, "context": {"cluster": "demo", "user": name}}
            for name in ("admin", "alice")
        ],
        "current-context": "admin",
    }
