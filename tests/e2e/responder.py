"""The upstream of the benchmarks as a process: fixed answers over TLS, faster than the guard."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Certificates
from tests.e2e.guard import until
from tests.e2e.real import free_ports

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Responder:
    """What a guard can be put before."""

    url: str
    ca_file: Path
    tokens_file: Path


@contextlib.contextmanager
def responding(folder: Path, certificates: Certificates, tokens: str) -> Iterator[Responder]:
    """Ends with the block; ``tokens`` are for the guard, it asks for none."""
    plain, tls = free_ports(2)
    tokens_file = folder / "tokens.csv"
    tokens_file.write_text(tokens)
    command = [sys.executable, "-m", "loadtests.bench.responder", str(plain), str(tls)]
    files = map(str, (*certificates.server, certificates.authority))
    with subprocess.Popen([*command, *files, "1"], cwd=ROOT) as process:
        try:
            until("the responder listens", lambda: listens(plain))
            yield Responder(f"https://127.0.0.1:{tls}", certificates.authority, tokens_file)
        finally:
            process.kill()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
