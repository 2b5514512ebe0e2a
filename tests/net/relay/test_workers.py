"""The relay in real workers: put together from the configuration file, one worker and two."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from apiguard.admin import relaying
from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.runtime.supervisor import Supervisor
from tests.net.guarded import eventually, guarded

from .guarding import GUARD_TOKEN, ask_url
from .test_authorization import ALICE, BOB
from .test_lists import visible


async def _is_shown_to_operators(supervisor: Supervisor, workers: int) -> None:
    """As one cache, with the counts of both workers and what stands out in what they hold."""

    def shown() -> Any:
        return json.loads(json.dumps(relaying.relay(supervisor, time.monotonic())))

    await eventually(lambda: shown()["caches"][0]["lists"].get("any", 0) >= 12)
    (secrets,) = shown()["caches"]
    assert (secrets["name"], secrets["form"], secrets["state"]) == ("secrets", "json", "ready")
    assert secrets["objects"] == 2
    assert secrets["bytes"]["objects"] > 0
    assert 1 <= len(secrets["workers"]) <= workers
    assert secrets["lag"]["lostSeconds"] == 0.0
    assert shown()["reviews"]["answered"] >= 4
    assert shown()["reviews"]["budgetPerSecond"] == 50.0
    assert shown()["refusals"]["403"] >= 1
    found = relaying.standing_out(await supervisor.operations.standouts("", "secrets"))
    (standouts,) = found.values()
    elephants = json.loads(json.dumps(standouts))["elephants"]
    assert {one["object"] for one in elephants} == {"default/canary", "kube-system/canary"}


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
        await _is_shown_to_operators(supervisor, workers)
        relayed = [r for r in server.requests if r.values("user-agent") == [b"apiguard-relay"]]
    lists = [r for r in relayed if r.target == "/api/v1/secrets"]
    watches = [r for r in relayed if "watch=true" in r.target]
    assert 1 <= len(lists) <= workers
    assert 1 <= len(watches) <= workers
