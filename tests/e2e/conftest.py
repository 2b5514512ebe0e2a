"""A guard and its upstream for every test; clusters with a guard before them for whole runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.e2e.guard import Guard, Upstream
from tests.e2e.kubelet import FakeKubelet
from tests.e2e.newcomer import Demo, demonstrating
from tests.e2e.real import RealApiServer, missing
from tests.e2e.stands import EmbeddedProcess, Stand


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    started = Upstream()
    yield started
    started.close()


@pytest.fixture
def guard(tmp_path: Path, upstream: Upstream) -> Iterator[Guard]:
    """Not started yet: the test may change settings and policy first."""
    made = Guard(tmp_path, upstream.url)
    yield made
    made.close()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with demonstrating(tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def real_apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApiServer]:
    """One for all tests: starting it takes seconds. Skips where there is none."""
    if missing():
        pytest.skip(missing())
    server = RealApiServer(tmp_path_factory.mktemp("apiserver"))
    try:
        server.wait()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def embedded(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Stand]:
    """The embedded API server behind a guard, both over TLS."""
    server = EmbeddedProcess(tmp_path_factory.mktemp("embedded"), certificates)
    try:
        made = Stand("embedded", tmp_path_factory.mktemp("embedded-guard"), server, certificates)
        yield made
        made.close()
    finally:
        server.close()


@pytest.fixture(scope="session")
def real(
    real_apiserver: RealApiServer,
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
) -> Iterator[Stand]:
    """kube-apiserver behind a guard, both over TLS."""
    made = Stand("real", tmp_path_factory.mktemp("real-guard"), real_apiserver, certificates)
    yield made
    made.close()


@pytest.fixture(scope="session", params=["embedded", pytest.param("real", marks=pytest.mark.real)])
def stand(request: pytest.FixtureRequest) -> Stand:
    """Each cluster there is, in turn."""
    found: Stand = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def kubelet(certificates: Certificates) -> Iterator[FakeKubelet]:
    """Runs nothing; speaks the streams of a kubelet."""
    made = FakeKubelet(*certificates.server)
    yield made
    made.close()
