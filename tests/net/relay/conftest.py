"""A populated API server and a guard with a relay before it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from apiguard.demo.apiserver import EmbeddedApiServer

from .guarding import Relayed, populate, started_server


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedApiServer]:
    found = await started_server(bookmark_every=0.2)
    populate(found)
    yield found
    await found.stop()


@pytest.fixture
async def relayed(server: EmbeddedApiServer) -> AsyncIterator[Relayed]:
    found = Relayed(server)
    yield found
    await found.close()
