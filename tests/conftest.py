"""Fixtures for tests that speak over sockets."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from apiguard.demo.certs import Authority

SEED_VARIABLE = "APIGUARD_TEST_SEED"


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files of one authority: a server's pair and a client's."""

    authority: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made once per session; they name loopback."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority("apiguard tests")
    path = folder / "ca.crt"
    path.write_bytes(authority.certificate)
    return Certificates(
        path,
        authority.server().write(folder, "server"),
        authority.client("alice", ["devs"]).write(folder, "client"),
    )


@pytest.fixture
def rng() -> random.Random:
    """Random choices of one test; a failure shows the seed to repeat them with."""
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().getrandbits(32))
    print(f"{SEED_VARIABLE}={seed}")  # noqa: T201 - pytest shows it with a failure
    return random.Random(seed)
