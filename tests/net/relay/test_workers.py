"""The relay in real workers: put together from the configuration file, one worker and two."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiguard.demo.apiserver import EmbeddedApiServer
from tests.net.guarded import guarded

from .guarding import GUARD_TOKEN, ask_url
from .test_authorization import ALICE, BOB
from .test_lists import visible


@pytest.mark.parametrize("workers", [1, 2])
async def test_readers_are_answered_and_judged_by_every_worker(
    server: EmbeddedApiServer, tmp_path: Path, workers: int
) -> None:
    """Each worker holds caches of its own: as many lists and watches as workers, no more."""
    server.authorizer.rules = [ALICE, BOB]
    (tmp_path / "own").write_text(GUARD_TOKEN)
    settings: dict[str, object] = {
        "upstream": {"servers": [server.url], "credentials": {"tokenFile": "own"}},
        "identity": {"tokenReview": {"enabled": True}},
        "relay": {"resources": [{"version": "v1", "resource": "secrets"}]},
    }
    targets = [
        f"/api/v1/namespaces/{namespace}/secrets?resourceVersion=0"
        for namespace in ("default", "kube-system")
    ]
    async with guarded(tmp_path, workers=workers, settings=settings) as supervisor:
        host, port = supervisor.address
        url = f"http://{host}:{port}"
        for _ in range(12):
            for token in ("alice-token", "bob-token"):
                for target in targets:
                    direct = await ask_url(server.url, target, token=token)
                    through = await ask_url(url, target, token=token)
                    assert visible(through) == visible(direct)
        relayed = [r for r in server.requests if r.values("user-agent") == [b"apiguard-relay"]]
    lists = [r for r in relayed if r.target == "/api/v1/secrets"]
    watches = [r for r in relayed if "watch=true" in r.target]
    assert 1 <= len(lists) <= workers
    assert 1 <= len(watches) <= workers
